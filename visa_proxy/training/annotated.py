"""Answers with annotated values: JSON Lines, one answer a line (`data/values/GUIDE.md` says what a label means).

    {"answer": …, "values": {"security": 1}, "query": …, "topic": …, "kind": …, "carriers": {"security": [2]}}

`answer` and `values` are needed; levels are -1 … 1. `carriers` names the sentences, from 1, that carry a value. Whole topics are
held out (`parts`): an answer is judged on subjects that training never saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.policy.problems import shown
from visa_proxy.training import jsonl
from visa_proxy.training.labelled import Part, part_of
from visa_proxy.values import Space, ValueVector

MIN_TOPICS: Final = 10
_KEYS: Final = frozenset({"topic", "kind", "query", "answer", "values", "carriers"})


@dataclass(frozen=True)
class Annotated:
    """One answer with its label."""

    topic: str
    kind: str
    """plain, mixed, neutral, words, implied, negated or quoted; "" where nobody said."""
    query: str
    answer: str
    values: NDArray[np.float32]
    """(dimensions of the space,)"""
    carriers: dict[str, tuple[int, ...]]
    """Value to the sentences that carry it, from 0."""

    space: Space

    @property
    def index(self) -> dict[str, int]:
        return self.space.index


def bundled(space: Space) -> list[Annotated]:
    """The corpus of `space` in this package: `data/values/<space>/*.jsonl`; empty where there is none."""
    return [row for file in jsonl.bundled(f"values/{space.name}") for row in read_annotated(file, space)]


def read_annotated(file: Path | Traversable, space: Space) -> list[Annotated]:
    """The rows of `file`. Raises ConfigError naming file, line and key of every row that is wrong (the first twenty)."""
    return jsonl.collect(file, lambda row: _annotated(row, space))


def _problems(row: dict[str, Any], space: Space) -> Iterator[str]:
    yield from (f"{_named(key)}: unknown key; allowed: {', '.join(sorted(_KEYS))}" for key in sorted(set(row) - _KEYS))
    for key in ("answer", "query", "topic", "kind"):
        if not isinstance(row.get(key, ""), str):
            yield f"{key}: must be a text"
    if not isinstance(row.get("answer"), str) or not split_sentences(row["answer"]):
        yield "answer: a text with at least one sentence is needed"
        return
    yield from _levels(row, space)


def _levels(row: dict[str, Any], space: Space) -> Iterator[str]:
    values, carriers = row.get("values"), row.get("carriers", {})
    if not isinstance(values, dict) or not isinstance(carriers, dict):
        yield "values, carriers: must be objects"
        return
    yield from jsonl.wrong_levels(values, "values", space, lambda name: f"values.{_named(name)}: no dimension of {space.name};")
    count = len(split_sentences(row["answer"]))
    for name, places in carriers.items():
        if name not in values:
            yield f"carriers.{_named(name)}: not among the values"
            continue
        wrong = [p for p in places if type(p) is not int or not 1 <= p <= count] if isinstance(places, list) else [places]
        if wrong:
            yield f"carriers.{_named(name)}: found {shown(wrong[0])}, allowed: a list of numbers of sentences, 1 … {count}"


def _named(key: str) -> str:
    """A key of somebody's file, short and on one line."""
    return key if key.isprintable() and len(key) <= 60 else shown(key)


def _annotated(line: jsonl.Row, space: Space) -> Annotated:
    row = line.data
    if problems := list(_problems(row, space)):
        raise line.error(*problems)
    values = ValueVector.of(space, row["values"]).array.astype(np.float32)
    carriers = {name: tuple(place - 1 for place in places) for name, places in row.get("carriers", {}).items()}
    return Annotated(row.get("topic", ""), row.get("kind", ""), row.get("query", ""), row["answer"], values, carriers, space)


def parts(rows: Iterable[Annotated]) -> dict[Part, list[Annotated]]:
    """The rows of each part: whole topics, or where there are fewer than `MIN_TOPICS`, single answers."""
    rows = list(rows)
    split: dict[Part, list[Annotated]] = {part: [] for part in get_args(Part)}
    by_topic = len({row.topic for row in rows if row.topic}) >= MIN_TOPICS
    for row in rows:
        split[part_of(f"topic {row.topic}" if by_topic and row.topic else row.answer)].append(row)
    return split
