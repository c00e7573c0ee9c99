"""How the words of two sentences line up: what frozen token states blur and the head needs to see sharply.

A framing comes before, after or in place of a lead-in; a changed fact is a word exchanged, dropped or put in between
words that stay.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

import numpy as np
from numpy.typing import NDArray

COUNT: Final = 16
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_FUNCTION: Final = frozenset(
    """a an the this that these those it its i you he she they we my your our his her their them us of in on at by for
    from with to
    as and so is are was were be been being do does did have has had there here""".split()
)
_STRENGTH: Final = frozenset(
    """all some any every each most many few several both either neither none no not never always often sometimes
    rarely usually
    only also more less fewer least must may might can could should would will shall need if unless until before after
    when while
    during over under above below without within cannot or used once""".split()
)


def features(premise: str, hypothesis: str) -> NDArray[np.float32]:
    """(16,) mostly log-scaled counts: runs of words exchanged, put in or left out at the edges and in between."""
    p, h = _words(premise), _words(hypothesis)
    if not p or not h:
        return np.zeros(COUNT, np.float32)
    codes = SequenceMatcher(None, p, h, autojunk=False).get_opcodes()
    equal = [i for i, code in enumerate(codes) if code[0] == "equal"]
    first, last = (equal[0], equal[-1]) if equal else (len(codes), -1)
    edge = [0.0, 0.0, 0.0, 0.0]  # words put in before and after, left out before and after
    inner: dict[str, float] = {"replace": 0, "insert": 0, "delete": 0}
    fresh = left = strong = 0.0
    known, kept = set(p), set(h)
    for i, (tag, p1, p2, h1, h2) in enumerate(codes):
        if tag == "equal":
            continue
        if i < first or i > last:
            edge[int(i > last)] += h2 - h1
            edge[2 + int(i > last)] += p2 - p1
            continue
        inner[tag] += 1
        fresh += sum(w not in known and w not in _FUNCTION for w in h[h1:h2])
        left += sum(w not in kept and w not in _FUNCTION for w in p[p1:p2])
        strong += len({w for w in p[p1:p2] if w in _STRENGTH} ^ {w for w in h[h1:h2] if w in _STRENGTH})
    counts = [*edge, *inner.values(), fresh, left, strong, _moved(codes, h, known), _repeats(h) - _repeats(p)]
    shares = [_share(h, known), _share(p, kept), sum(c[4] - c[3] for c in codes if c[0] == "equal") / len(h)]
    return np.array([*np.log1p(np.maximum(counts, 0)), *shares, 1.0], np.float32)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _moved(codes: Sequence[tuple[str, int, int, int, int]], h: Sequence[str], known: set[str]) -> float:
    """Content words that both have, in another place."""
    return sum(word in known and word not in _FUNCTION for tag, _, _, h1, h2 in codes if tag != "equal" for word in h[h1:h2])


def _repeats(words: Sequence[str]) -> float:
    return sum(a == b for a, b in itertools.pairwise(words))


def _share(words: Sequence[str], others: set[str]) -> float:
    """Of the content words of `words`, those that `others` has."""
    content = [word for word in words if word not in _FUNCTION]
    return sum(word in others for word in content) / len(content) if content else 1.0
