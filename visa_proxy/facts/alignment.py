"""What has to be asked of the entailment head: the sentences that changed, each with what it may follow from.

Words decide, so nothing is encoded that is not asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.facts.checks import content_stems, sentence_key

WINDOW: Final = 3
"""A sentence may draw on this many neighbouring sentences of the other text, so that joining and splitting cost nothing."""


FEW: Final = 3
"""Words of a sentence that say too little to miss it by."""
HALF: Final = 0.55


@dataclass(frozen=True)
class Question:
    """Does `hypothesis` follow from at least one of `premises`?"""

    hypothesis: str
    premises: tuple[tuple[str, ...], ...]
    """Neighbouring sentences of the other text, one or two choices of them."""
    missing: bool = False
    """Hardly half of its words are there, and those in a sentence that another one is told by: it was left out."""


def questions(sentences: Sequence[str], others: Sequence[str], *, complete: bool = False) -> list[Question]:
    """One for each of `sentences` that `others` do not hold, white space, case and outer punctuation aside; none without `others`.

    `complete`: `others` are to tell them all, so that what was left out is looked for; a framing that was added has no counterpart.
    """
    if not others:
        return []
    known, own = {sentence_key(other) for other in others}, {sentence_key(sentence) for sentence in sentences}
    stems = [content_stems(other) for other in others]
    changed = [sentence_key(other) not in own for other in others]
    words = [content_stems(sentence) for sentence in sentences]
    asked = []
    for i, sentence in enumerate(sentences):
        if sentence_key(sentence) not in known:
            places = _places(words[i], stems, changed, i / len(sentences))
            missing = complete and _missing(i, words, stems, places)
            asked.append(Question(sentence, tuple(tuple(others[start:end]) for start, end in places), missing))
    return asked


def _places(
    sentence: frozenset[str], others: Sequence[frozenset[str]], changed: Sequence[bool], place: float
) -> list[tuple[int, int]]:
    """The one of `others` that shares most, and that with the neighbours that share more.

    Between equals one that changed too is likelier, and then one at the same `place`, 0 … 1, of its text.
    """
    shared = [sentence & other for other in others]
    likeness = [
        len(both) / max(1, len(sentence)) + len(both) / max(1, len(other)) + 0.3 * new - 0.2 * abs(i / len(others) - place)
        for i, (both, other, new) in enumerate(zip(shared, others, changed, strict=True))
    ]
    best = max(range(len(others)), key=likeness.__getitem__)
    low, high = best, best
    covered = set(shared[best])
    while high - low + 1 < WINDOW:
        near = [i for i in (low - 1, high + 1) if 0 <= i < len(others)]
        step = max(near, key=lambda i: len(shared[i] - covered), default=best)
        if not shared[step] - covered:
            break
        covered |= shared[step]
        low, high = min(low, step), max(high, step)
    return sorted({(best, best + 1), (low, high + 1)})


def _missing(i: int, own: Sequence[frozenset[str]], others: Sequence[frozenset[str]], places: Sequence[tuple[int, int]]) -> bool:
    """See `Question.missing`; `own`, `others`: the words of all sentences, `places`: where number `i` is looked for."""
    (best, _), *_ = sorted(places, key=lambda place: place[1] - place[0])
    low, high = max(places, key=lambda place: place[1] - place[0])
    words = own[i]
    shared = len(words & others[best])
    if len(words) < FEW or not shared or len(words & frozenset().union(*others[low:high])) >= HALF * len(words):
        return False
    return any(
        len(rival & others[best]) > shared and len(rival & others[best]) * len(words) > shared * len(rival)
        for k, rival in enumerate(own)
        if k != i
    )
