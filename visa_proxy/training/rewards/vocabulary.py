"""Words that name a value: what somebody reaches for who feigns one."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable
from typing import Final

import yaml

from visa_proxy.values import Space

WORD: Final = re.compile(r"[^\W\d_][\w'’-]*")


def spoken(text: str) -> str:
    """Its words alone, small, a blank between two."""
    return " ".join(word.casefold() for word in WORD.findall(text.replace("_", " ")))


@functools.lru_cache(maxsize=16)
def names(space: Space) -> re.Pattern[str]:
    """Names and keywords of the values, in a text as it is `spoken`."""
    return _any_of(_called(space))


@functools.lru_cache(maxsize=16)
def vocabulary(space: Space) -> re.Pattern[str]:
    """Those, and the nouns and adjectives of the lexicon for values that it has."""
    file = importlib.resources.files("visa_proxy.training") / "data" / "lexicon.yaml"
    lexicon = yaml.safe_load(file.read_text(encoding="utf-8"))["words"]
    lists = [lexicon[name] for name in space.names if name in lexicon]
    entries = [entry for each in lists for kind in ("nouns", "adjectives") for entry in each[kind]]
    return _any_of([*entries, *_called(space)])


def _called(space: Space) -> list[str]:
    return [word for each in space.dimensions for word in (each.name, *each.keywords)]


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """The longest first."""
    found = sorted({spoken(word) for word in words}, key=lambda word: (-len(word), word))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, found))})\b")
