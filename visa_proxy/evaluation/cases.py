"""Cases: what every system is asked to rewrite. JSON Lines, one case a line.

    {"id", "topic", "query", "answer", "target": {value: level}, "offset": {value: step}, "glossary": [term]}

`target` is v*, the values not named being 0. `offset` (Δv) and `glossary` may be missing: without Δv, the values asked for are those in
which the target lies at least `NAMED` from the answer as the judge measures it.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.errors import ConfigError
from visa_proxy.policy.problems import shown
from visa_proxy.shield.windows import MAX_WHOLE
from visa_proxy.training import jsonl
from visa_proxy.values import Space, ValueVector, load_space

NAMED: Final = 0.25
"""Half of the distance between two of the five levels."""
MAX_TERMS: Final = 1_000
_KEYS: Final = ("id", "topic", "query", "answer", "target", "offset", "glossary")


@dataclass(frozen=True)
class Case:
    """One answer, and the values it is to express."""

    id: str
    topic: str
    """Answers of one topic are resampled together."""
    query: str
    answer: str
    target: ValueVector
    """v*, never the zero vector: nothing has a cosine with that."""
    offset: Mapping[str, float] | None = None
    """Δv by value, -2 … 2; None where nobody said."""
    glossary: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The line; levels of 0 are left out."""
        data: dict[str, Any] = {"id": self.id, "topic": self.topic, "query": self.query, "answer": self.answer}
        data["target"] = {name: level for name, level in self.target.to_dict().items() if level}
        if self.offset is not None:
            data["offset"] = dict(self.offset)
        if self.glossary:
            data["glossary"] = list(self.glossary)
        return data

    @property
    def digest(self) -> str:
        """Of everything that a system is told, or judged by; the id and the topic are neither."""
        told = {key: value for key, value in self.to_dict().items() if key not in ("id", "topic")}
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def space() -> Space:
    """Of all targets."""
    return load_space("schwartz")


def bundled() -> Traversable:
    """The frozen cases; `visa-proxy eval cases` writes the same file."""
    return importlib.resources.files("visa_proxy.evaluation").joinpath("data", "cases.jsonl")


def read_cases(file: Path | Traversable) -> list[Case]:
    """The cases of `file`. Raises ConfigError naming file, line and key of every row that is wrong (the first twenty)."""
    lines: dict[str, str] = {}

    def read(row: jsonl.Row) -> Case:
        if problems := list(_problems(row.data)):
            raise row.error(*problems)
        if (line := lines.setdefault(row.data["id"], row.within)) != row.within:
            raise row.error(f"id: found {shown(row.data['id'])}, which {line} has too")
        return _case(row.data)

    if not (cases := jsonl.collect(file, read)):
        raise ConfigError([f"{file}: no case in it"])
    return cases


def dumps(cases: Iterable[Case]) -> bytes:
    """The file: the same bytes for the same cases."""
    return b"".join(orjson.dumps(case.to_dict()) + b"\n" for case in cases)


def _problems(data: dict[str, Any]) -> Iterator[str]:
    yield from (f"unknown key {shown(key)}; allowed: {', '.join(_KEYS)}" for key in data if key not in _KEYS)
    for key in ("id", "topic", "query", "answer"):
        if not isinstance(data.get(key), str):
            yield f"{key}: found {shown(data.get(key))}, allowed: a text"
        elif key != "query" and not data[key].strip():
            yield f"{key}: found {shown(data[key])}, allowed: a text with something to read"
    if isinstance(answer := data.get("answer"), str) and len(answer) > MAX_WHOLE:
        yield f"answer: found {len(answer)} characters, allowed: {MAX_WHOLE}"
    yield from _levels(data.get("target"), "target", 1.0)
    if "offset" in data:
        yield from _levels(data["offset"], "offset", 2.0)
    terms = data.get("glossary", [])
    if not isinstance(terms, list) or len(terms) > MAX_TERMS or not all(isinstance(t, str) and t.strip() for t in terms):
        yield f"glossary: found {shown(terms)}, allowed: a list of at most {MAX_TERMS} terms"


def _levels(found: Any, key: str, most: float) -> Iterator[str]:
    yield from jsonl.wrong_levels(found, key, space(), lambda name: f"{key}: unknown value {shown(name)};", most)
    if isinstance(found, dict) and not any(found.values()):
        yield f"{key}: found no level but 0, allowed: at least one other"


def _case(data: dict[str, Any]) -> Case:
    return Case(
        id=data["id"],
        topic=data["topic"],
        query=data["query"],
        answer=data["answer"],
        target=ValueVector.of(space(), data["target"]),
        offset=data.get("offset"),
        glossary=tuple(data.get("glossary", ())),
    )
