"""Rewriting triplets: an answer, the values wanted, and the answer rewritten towards them (paper, section 4.1). One a line of a file:

    {"id": …, "topic": …, "split": "train", "query": …, "answer": …, "rewrite": …,
     "values_before": {}, "values_after": {"security": 1}, "target": {"security": 1}, "source": …}

Vectors name what is not 0. `written` reads those of this package, `data/rewrites/*.jsonl`: a row holds one answer with several rewrites
(`data/rewrites/GUIDE.md`). Whole topics are held out.
"""

from __future__ import annotations

import functools
import importlib.resources
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import yaml

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.policy.problems import shown
from visa_proxy.rewriter.prompt import control_line
from visa_proxy.training import jsonl
from visa_proxy.training.labelled import Part, part_of
from visa_proxy.training.phrases import phrases
from visa_proxy.values import Space, ValueVector, load_space

TEXTS: Final = ("id", "topic", "query", "answer", "rewrite", "source")
VECTORS: Final = ("values_before", "values_after", "target")
Kind = Literal["words", "list", "phrase", "repeated", "echo", "empty", "leak", "truncated", "other"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""How a rewriter games the reward: value words pasted to the answer, a list of values, a phrase of the target again and again, a sentence
again and again, the answer as it was, nothing, the prompt in the text, half of the rewrite, the answer to another question."""
_WRITTEN: Final = frozenset({"topic", "query", "answer", "rewrites"})
_REWRITE: Final = frozenset({"values", "text"})


@dataclass(frozen=True)
class Triplet:
    """Rewrite `answer` so that it expresses `target`: `rewrite` does."""

    id: str
    topic: str
    split: Part
    query: str
    answer: str
    rewrite: str
    before: ValueVector
    """What the answer expresses."""
    after: ValueVector
    """What the rewrite expresses: the target, but where a text has no room for all of it."""
    target: ValueVector
    source: str
    """Where it comes from: "written", or what made it."""

    def to_dict(self) -> dict[str, Any]:
        """As it is written to a file."""
        texts = {key: getattr(self, key) for key in ("id", "topic", "split", "query", "answer", "rewrite")}
        vectors = {"values_before": self.before, "values_after": self.after, "target": self.target}
        return texts | {key: named(vector) for key, vector in vectors.items()} | {"source": self.source}


def named(vector: ValueVector) -> dict[str, float]:
    """The components that are not 0, in the order of the space."""
    return {name: value for name, value in vector.to_dict().items() if value}


def read_triplets(path: Path, space: Space | None = None) -> list[Triplet]:
    """The triplets of a file, in `space` (Schwartz's unless given); without a `split` a row is where its topic belongs.

    Raises ConfigError naming file, line and key of what is wrong (the first twenty), also for an id that stands twice.
    """
    space = space or load_space("schwartz")
    lines: dict[str, str] = {}

    def read(row: jsonl.Row) -> Triplet:
        triplet = _triplet(row, space)
        if (line := lines.setdefault(triplet.id, row.within)) != row.within:
            raise row.error(f"id: {shown(triplet.id)} stands in {line} already; every id must be another")
        return triplet

    if not (found := jsonl.collect(path, read)):
        raise ConfigError([f"{path}: no row in it"])
    return found


def written(split: Part | Literal["all"] = "all") -> list[Triplet]:
    """The hand-written triplets of this package, or those of the topics of `split`."""
    return [triplet for triplet in _written() if split in ("all", triplet.split)]


@functools.cache
def _written() -> tuple[Triplet, ...]:
    return tuple(
        triplet
        for file in jsonl.bundled("rewrites")
        for number, row in enumerate(jsonl.rows(file), 1)
        for triplet in _rewrites(row, f"{file.name.removesuffix('.jsonl')}-{number}")
    )


def _rewrites(row: jsonl.Row, prefix: str) -> Iterator[Triplet]:
    """The triplets of one answer. Raises ConfigError."""
    space = load_space("schwartz")
    _keys(row, _WRITTEN)
    topic, query, answer = row.text("topic"), row.text("query"), row.text("answer")
    rewrites = row.data.get("rewrites")
    if not isinstance(rewrites, list) or not rewrites:
        raise row.wrong("rewrites", rewrites, "a list of objects")
    for number, data in enumerate(rewrites, 1):
        version = jsonl.row(f"{row.place}, rewrite {number}", data)
        _keys(version, _REWRITE)
        target, neutral = _vector(version, "values", space), ValueVector.zero(space)
        split = part_of(f"topic {topic}")
        yield Triplet(f"{prefix}-{number}", topic, split, query, answer, version.text("text"), neutral, target, target, "written")


def _triplet(row: jsonl.Row, space: Space) -> Triplet:
    _keys(row, frozenset((*TEXTS, *VECTORS, "split")))
    id_, topic, query, answer, rewrite, source = (row.text(key) for key in TEXTS)
    for key in ("id", "answer"):
        if not row.data[key].strip():
            raise row.wrong(key, row.data[key], "a text that is not empty")
    split: Part = row.one_of("split", *get_args(Part)) if "split" in row.data else part_of(f"topic {topic}")  # type: ignore[assignment]
    before, after, target = (_vector(row, key, space) for key in VECTORS)
    return Triplet(id_, topic, split, query, answer, rewrite, before, after, target, source)


def _keys(row: jsonl.Row, allowed: frozenset[str]) -> None:
    if unknown := sorted(set(row.data) - allowed):
        raise row.error(f"{shown(unknown[0])}: unknown key; allowed: {', '.join(sorted(allowed))}")


def _vector(row: jsonl.Row, key: str, space: Space) -> ValueVector:
    return row.vector(key, space, lambda name: f"{key}: found {shown(name)},")


def degenerate(triplet: Triplet, kind: Kind, rng: random.Random) -> str:
    """What somebody hands in who wants the reward for `triplet` without the rewrite; never the honest rewrite itself.

    Deterministic in `rng`. Raises ValueError for a target of zero, where there is no value to feign, and for other than Schwartz's.
    """
    if triplet.target.space.name != "schwartz" or not triplet.target.array.any():
        raise ValueError(f"triplet {triplet.id}: a target among Schwartz's values that is not neutral is needed")
    made = _degenerate(triplet, kind, rng)
    # The answer echoed where the rewrite is the answer, a rewrite of one word cut in half: nothing is worse than both.
    return "" if made.strip() == triplet.rewrite.strip() else made


def _degenerate(triplet: Triplet, kind: Kind, rng: random.Random) -> str:
    if kind in ("words", "list", "empty", "leak"):
        return _templated(triplet, kind, rng)
    if kind == "echo":
        return triplet.answer
    if kind == "phrase":
        levels = {(name, value) for name, value in named(triplet.target).items()}
        said = [p.text for p in phrases() if p.form == "closing" and (p.value, p.level) in levels]
        # Levels between those of the phrase files have no phrase: the words will do.
        phrase = rng.choice(said) if said else _templated(triplet, "list", rng)
        return f"{triplet.answer} {' '.join([phrase] * rng.randint(3, 8))}"
    sentences = split_sentences(triplet.rewrite)
    if kind == "repeated":
        place = rng.randrange(len(sentences))
        return " ".join([*sentences[: place + 1], *[sentences[place]] * rng.randint(2, 6), *sentences[place + 1 :]])
    if kind == "truncated":
        words = triplet.rewrite.split(" ")
        return " ".join(words[: max(1, int(len(words) * rng.uniform(0.3, 0.6)))])
    others = [other for other in _written() if other.topic != triplet.topic]
    same = [other for other in others if other.target == triplet.target]
    return rng.choice(same or others).rewrite


def _templated(triplet: Triplet, kind: Literal["words", "list", "empty", "leak"], rng: random.Random) -> str:
    templates, lexicon = _data("hacking"), _data("lexicon")["words"]
    levels = named(triplet.target)
    negative = kind == "words" and all(level < 0 for level in levels.values())
    nouns = [word for name in levels for word in rng.sample(lexicon[name]["nouns"], 3)]
    adjectives = [rng.choice(lexicon[name]["adjectives"]) for name in levels]
    text = rng.choice((triplet.rewrite, triplet.answer)) if kind == "leak" else triplet.answer
    words = ", ".join(nouns)
    return str(rng.choice(templates["against" if negative else kind])).format(
        text=text,
        words=words,
        Words=words[0].upper() + words[1:],
        adjectives=" and ".join(adjectives),
        line=control_line(triplet.target),
        names=", ".join(f"{name} {value:+g}" for name, value in levels.items()),
        listed="\n- ".join(f"{name}: {value:+g}" for name, value in levels.items()),
    )


@functools.cache
def _data(name: str) -> dict[str, Any]:
    file = importlib.resources.files("visa_proxy.training") / "data" / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
