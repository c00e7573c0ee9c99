"""Value-laden phrases: what the synthetic rewrites, the detector's labels and the translator's instructions are made of.

One YAML file per value in `data/phrases/`; for each of the levels +1.0, +0.5, -0.5, -1.0 it lists openings and closings
(whole sentences), leads ("To stay on the safe side,"), tails (", just in case"), reframes ([neutral, loaded] lead-ins) and
instructions.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import yaml

from visa_proxy.errors import ConfigError
from visa_proxy.values import load_space

Form = Literal["opening", "closing", "lead", "tail", "reframe"]
Split = Literal["all", "train", "heldout"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
PHRASE_LEVELS: Final = {"+1.0": 1.0, "+0.5": 0.5, "-0.5": -0.5, "-1.0": -1.0}
HELDOUT_SHARE: Final = 0.15


@dataclass(frozen=True)
class Phrase:
    """A piece of text that expresses `value` at `level`."""

    value: str
    """Dimension name of the Schwartz space."""
    level: float
    """-1, -0.5, 0.5 or 1 (paper, App. C.1)."""
    form: Form
    text: str
    """Openings and closings are sentences, a lead ends with a comma, a tail brings its own space and no full stop."""
    neutral: str = ""
    """Reframes only: the neutral lead-in that `text` replaces."""


@dataclass(frozen=True)
class Instruction:
    """What a person writes who wants `value` moved to `level` (paper, section 3.3)."""

    value: str
    level: float
    text: str


Entry = TypeVar("Entry", Phrase, Instruction)


def phrases(split: Split = "all", directory: Path | None = None) -> tuple[Phrase, ...]:
    """The phrases of `split`, sorted by value, level and form; "heldout" is 15 % of each form of each level.

    `directory` replaces the bundled files. Raises ConfigError for a file that does not have the documented layout.
    """
    return _side(_load(directory)[0], split)


def instructions(split: Split = "all", directory: Path | None = None) -> tuple[Instruction, ...]:
    """The instructions of `split`, split as `phrases` are."""
    return _side(_load(directory)[1], split)


def _side(groups: tuple[tuple[Entry, ...], ...], split: Split) -> tuple[Entry, ...]:
    if split == "all":
        return tuple(entry for group in groups for entry in group)
    chosen: list[Entry] = []
    for group in groups:
        held = _heldout(entry.text for entry in group)
        chosen += [entry for entry in group if (entry.text in held) == (split == "heldout")]
    return tuple(chosen)


def _heldout(texts: Iterable[str]) -> frozenset[str]:
    """The 15 % (at least one of four or more) whose hash comes first: independent of order and of the other groups."""
    ranked = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())
    count = int(len(ranked) * HELDOUT_SHARE + 0.5)
    return frozenset(ranked[: max(count, int(len(ranked) >= 4))])


_Groups = tuple[tuple[tuple[Phrase, ...], ...], tuple[tuple[Instruction, ...], ...]]


@functools.cache
def _load(directory: Path | None) -> _Groups:
    root: Traversable = directory or importlib.resources.files("visa_proxy.training") / "data" / "phrases"
    files = sorted((f for f in root.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name)
    if not files:
        raise ConfigError([f"{root}: no phrase files (<value>.yaml)"])
    said: list[tuple[Phrase, ...]] = []
    asked: list[tuple[Instruction, ...]] = []
    for file in files:
        for value, level, block in _levels(file):
            said += [tuple(_phrases(file.name, value, level, form, block)) for form in FORMS]
            asked.append(tuple(Instruction(value, level, text) for text in _strings(file.name, block, "instructions")))
    return tuple(said), tuple(asked)


def _levels(file: Traversable) -> Iterator[tuple[str, float, dict[str, Any]]]:
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.get("value") not in load_space("schwartz").index:
        raise ConfigError([f"{file.name}: value: must name a Schwartz value"])
    levels = data.get("levels")
    if not isinstance(levels, dict) or set(map(str, levels)) != set(PHRASE_LEVELS):
        raise ConfigError([f"{file.name}: levels: must be exactly {', '.join(PHRASE_LEVELS)} (quoted)"])
    for name, level in PHRASE_LEVELS.items():
        yield data["value"], level, levels[name]


def _phrases(file: str, value: str, level: float, form: Form, block: dict[str, Any]) -> Iterator[Phrase]:
    if form != "reframe":
        yield from (Phrase(value, level, form, text) for text in _strings(file, block, form))
        return
    for pair in block.get("reframe") or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ConfigError([f"{file}: reframe: {pair!r} is not [neutral, loaded]"])
        yield Phrase(value, level, "reframe", pair[1], neutral=pair[0])


def _strings(file: str, block: dict[str, Any], key: str) -> list[str]:
    texts = block.get(key) or []
    if not (isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)):
        raise ConfigError([f"{file}: {key}: must be a list of texts"])
    return texts
