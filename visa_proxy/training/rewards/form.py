"""What can be seen of a rewrite without a model: is it one, or a way to please a model."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.rewards.leaks import leaks
from visa_proxy.training.rewards.pasting import pasted
from visa_proxy.training.rewards.vocabulary import names, spoken
from visa_proxy.values import Space

ROOM: Final = 12
"""Words that a rewrite of however short a text may add: a phrase takes that many."""
WIDE: Final = (0.7, 1.6)
"""Length ratios that are nobody's business."""
LIMITS: Final = (0.35, 3.0)
"""Length ratios that earn nothing."""
SHORTEST: Final = 0.5
LONGEST: Final = 2.0
"""Characters by those of the original: beyond them it is no rewrite. `SPARE` more are always allowed, since a short answer may well
take one sentence more."""
SPARE: Final = 200
UNCHANGED: Final = "unchanged"
GRAM: Final = 4
LOOP: Final = 3
"""So many times a run of `GRAM` words, or a sentence of one word, may not stand in a text, where the original does not repeat it as often."""
LISTED: Final = 3
"""Names of values in a rewrite that the original does not have: more than this is a list of them."""
RUN: Final = 3
"""So many, one after the other, are one too."""
_WORD: Final = re.compile(r"\w+")
_MARKED: Final = re.compile(r"^[ \t]*(?:[-*•+][ \t]|\d{1,3}[.)][ \t]|#{1,6}[ \t]|>|\||`{3}|~{3})", re.MULTILINE)
"""A line that has a meaning in Markdown: an item, a heading, a quotation, a row, a fence."""
_OPEN: Final = frozenset(",-–—(/&")


def faults(original: str, rewritten: str, space: Space) -> tuple[str, ...]:
    """What is wrong with `rewritten` as a rewrite of `original`; both with their verbatim spans in place. `space`: that of the target.

    empty; unchanged: the same words; repeated: a sentence, or a run of words, more often than in the original; leaked: the prompt
    shows; listed: values are named, not expressed; pasted: their vocabulary is glued on, or a bare list of words; layout: other items,
    headings or rows than the original's; cut: it has no end, and the original has one; short, long: less than half, more than twice.
    """
    words, before = _words(rewritten), _words(original)
    if not words:
        return ("empty",)
    if words == before:
        return (UNCHANGED,)
    found = {
        "repeated": _repeated(original, rewritten) or _looping(before, words),
        "leaked": leaks(original, rewritten, space),
        "listed": _listed(original, rewritten, space),
        "pasted": pasted(original, rewritten, space),
        "layout": len(_MARKED.findall(original)) != len(_MARKED.findall(rewritten)),
        "cut": _ended(original) and not _ended(rewritten),
        "short": len(rewritten.strip()) < SHORTEST * len(original.strip()),
        "long": len(rewritten.strip()) > LONGEST * len(original.strip()) + SPARE,
    }
    return tuple(name for name, wrong in found.items() if wrong)


def length_ratio(original: str, rewritten: str) -> float:
    """Words of the rewrite by words of the original, both with `ROOM` more, so that short texts may grow by a phrase."""
    return (len(_words(rewritten)) + ROOM) / (len(_words(original)) + ROOM)


def length_score(ratio: float) -> float:
    """0 … 1: 1 for ratios in `WIDE`, from there straight down to 0 at `LIMITS`."""
    low, high = (ratio - LIMITS[0]) / (WIDE[0] - LIMITS[0]), (LIMITS[1] - ratio) / (LIMITS[1] - WIDE[1])
    return max(0.0, min(1.0, low, high))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _repeated(original: str, rewritten: str) -> bool:
    """A sentence twice, one of a single word thrice."""
    before, after = (Counter(" ".join(_words(s)) for s in split_sentences(text)) for text in (original, rewritten))
    return any(
        sentence and count > before[sentence] and count >= (2 if " " in sentence else LOOP) for sentence, count in after.items()
    )


def _looping(before: list[str], after: list[str]) -> bool:
    known = Counter(zip(*(before[i:] for i in range(GRAM)), strict=False))
    found = Counter(zip(*(after[i:] for i in range(GRAM)), strict=False))
    return any(count >= LOOP and count > known[run] for run, count in found.items())


def _listed(original: str, rewritten: str, space: Space) -> bool:
    before, after = spoken(original), spoken(rewritten)
    own = {spoken(name) for name in space.names}
    added = set(names(space).findall(after)) - set(names(space).findall(before))
    if len(added & own) > LISTED:
        return True
    return bool(added) and bool(_run(space).search(after)) and not _run(space).search(before)


@functools.lru_cache(maxsize=16)
def _run(space: Space) -> re.Pattern[str]:
    return re.compile(r"(?: (?:and|or))? ".join([names(space).pattern] * RUN))


def _ended(text: str) -> bool:
    """The last character is that of an end: a stop, a closing bracket, a symbol; no letter, digit or comma."""
    last = text.rstrip()[-1:]
    return bool(last) and not last.isalnum() and last not in _OPEN
