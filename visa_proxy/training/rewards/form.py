"""What can be seen of a rewrite without a model: is it one, or a way to please a model."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.rewards.pasting import pasted
from visa_proxy.values import load_space

ROOM: Final = 12
"""Words that a rewrite of however short a text may add: a phrase takes that many."""
WIDE: Final = (0.7, 1.6)
"""Length ratios that are nobody's business."""
LIMITS: Final = (0.35, 3.0)
"""Length ratios that count as no rewrite at all."""
GRAM: Final = 4
LOOP: Final = 3
"""So many times a run of `GRAM` words may stand in a text, where the original does not repeat it as often."""
LISTED: Final = 3
"""Names of values in a rewrite that the original does not have: more than this is a list of them."""
_WORD: Final = re.compile(r"\w+")
_LEAK: Final = re.compile(
    r"<\|\w+\|>|[⟦⟧]|^\W*(?:target values|answer to rewrite|rewritten answer|question)\s*:|\[/?inst\]|<think>",
    re.IGNORECASE | re.MULTILINE,
)
_SCALE: Final = r"[ \t]*[:=]?[ \t]*[-+−]\d"


def faults(original: str, rewritten: str) -> tuple[str, ...]:
    """What is wrong with `rewritten` as a rewrite of `original`; both with their verbatim spans in place.

    empty; unchanged: the same words; repeated: a sentence, or a run of words, more often than in the original; leaked: the prompt
    shows; listed: values are named, not expressed; pasted: their vocabulary is glued on; layout: other lines than the original's.
    """
    words, before = _words(rewritten), _words(original)
    if not words:
        return ("empty",)
    found = {
        "unchanged": words == before,
        "repeated": _repeated(original, rewritten) or _looping(before, words),
        "leaked": _leaks(original, rewritten),
        "listed": len(_named(rewritten) - _named(original)) > LISTED,
        "pasted": pasted(original, rewritten),
        "layout": _lines(original) != _lines(rewritten),
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


def _lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip())


def _repeated(original: str, rewritten: str) -> bool:
    before, after = (Counter(" ".join(_words(s)) for s in split_sentences(text)) for text in (original, rewritten))
    return any(count > max(1, before[sentence]) for sentence, count in after.items())


def _looping(before: list[str], after: list[str]) -> bool:
    known = Counter(zip(*(before[i:] for i in range(GRAM)), strict=False))
    found = Counter(zip(*(after[i:] for i in range(GRAM)), strict=False))
    return any(count >= LOOP and count > known[run] for run, count in found.items())


def _leaks(original: str, rewritten: str) -> bool:
    return any(len(pattern.findall(rewritten)) > len(pattern.findall(original)) for pattern in (_LEAK, _levels()))


@functools.cache
def _levels() -> re.Pattern[str]:
    """A value's name with a level, as the prompts have it."""
    names = "|".join(name.replace("_", "[ _-]") for name in load_space("schwartz").names)
    return re.compile(rf"\b(?:{names}){_SCALE}", re.IGNORECASE)


def _named(text: str) -> set[str]:
    spoken = " ".join(_words(text.replace("_", " ")))
    return {name for name in load_space("schwartz").names if re.search(rf"\b{name.replace('_', ' ')}\b", spoken)}
