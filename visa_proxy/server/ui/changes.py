"""What a rewrite changed, word by word, and what it had to leave alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from visa_proxy.policy.schema import Shield
from visa_proxy.shield.preserve import PLACEHOLDER, protect

MAX_WORDS: Final = 4000
"""Of one text: beyond that comparing would take seconds."""
_WORD: Final = re.compile(r"\s*\S+|\s+\Z")

Kind = Literal["same", "kept", "changed"]
"""kept: a verbatim span, which no rewrite may touch."""


@dataclass(frozen=True)
class Piece:
    """A run of words of one kind, with the white space before each."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Changes:
    """Both texts in pieces; joined, they are the texts."""

    base: list[Piece]
    rewritten: list[Piece]


def changes(base: str, rewritten: str, shield: Shield) -> Changes | None:
    """Which words of `base` are gone and which of `rewritten` are new; `shield` says what is verbatim. None for texts that are too long."""
    before, after = list(_WORD.finditer(base)), list(_WORD.finditer(rewritten))
    if max(len(before), len(after)) > MAX_WORDS:
        return None
    spans = list(_spans(base, shield))
    kinds: list[Kind] = ["changed"] * len(before)
    news: list[Kind] = ["changed"] * len(after)
    words = [word[0].strip() for word in before], [word[0].strip() for word in after]
    for match in difflib.SequenceMatcher(None, *words, autojunk=False).get_matching_blocks():
        for at in range(match.size):
            word = before[match.a + at]
            kept = any(start < word.end() and word.start() < end for start, end in spans)
            kinds[match.a + at] = news[match.b + at] = "kept" if kept else "same"
    return Changes(_pieces(before, kinds), _pieces(after, news))


def _spans(text: str, shield: Shield) -> Iterator[tuple[int, int]]:
    """Where the verbatim spans of `text` stand."""
    protected = protect(text, shield.preserve, shield.glossary)
    moved, position = 0, 0
    for match, span in zip(PLACEHOLDER.finditer(protected.text), protected.spans, strict=True):
        position = match.start() + moved
        yield position, position + len(span)
        moved += len(span) - len(match[0])


def _pieces(words: list[re.Match[str]], kinds: list[Kind]) -> list[Piece]:
    runs = groupby(zip(words, kinds, strict=True), key=lambda pair: pair[1])
    return [Piece(kind, "".join(word[0] for word, _ in run)) for kind, run in runs]
