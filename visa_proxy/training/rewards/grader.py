"""The one grader of rewrites: what training rewards is what evaluation counts (paper, section 3.2.2)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.detector.base import Detector
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.shield.pipeline import MAX_QUERY
from visa_proxy.shield.preserve import PLACEHOLDER, Protected
from visa_proxy.shield.verify import measured
from visa_proxy.training.rewards.form import faults, length_ratio
from visa_proxy.values import ValueVector

AT_ONCE: Final = 256
"""Completions being measured at the same time: enough to fill the instruments' batches."""
REMEMBERED: Final = 8192
"""Grades kept: every reward of a step asks for the same ones."""


@dataclass(frozen=True)
class Case:
    """What was to be rewritten."""

    query: str
    original: str
    """The answer y."""
    protected: Protected
    """y as the rewriter saw it."""
    target: ValueVector
    """v*."""


@dataclass(frozen=True)
class Bounds:
    """What a joint success is (paper, section 4.5; its own bounds are lost in the copy that we work from): all must hold."""

    value: float = 0.5
    """At least this cosine to v*."""
    consistency: float = 0.6
    """At least this consistent: what the shield asks by default."""


@dataclass(frozen=True)
class Grade:
    """One rewrite, measured."""

    value: float
    """-1 … 1: cosine of Ψ(query, y') and v* (paper, Eq. 3); for a v* of zero, see `nearness`."""
    forward: float
    """0 … 1: nothing lost."""
    backward: float
    """0 … 1: nothing added."""
    consistency: float
    """0 … 1: the smaller direction; 0 where a deterministic fact differs or a placeholder is not intact."""
    intact: bool
    """Every placeholder once and in order."""
    faults: tuple[str, ...]
    """What is wrong with its form, see `form.faults`."""
    length: float
    """By the original's; see `form.length_ratio`."""
    l2: float
    """|Ψ(query, y') - v*| (paper, section 4.2)."""

    def success(self, bounds: Bounds) -> bool:
        """Joint success."""
        return self.intact and not self.faults and self.value >= bounds.value and self.consistency >= bounds.consistency


EMPTY: Final = ("empty",)


class Grader:
    """Grades rewrites with the instruments that verify them in serving. A rewrite is graded once, however often it is handed in.

    The instruments encode a sentence once, and ask nothing about sentences that stand in both texts, so what a grade costs goes by
    what was changed.
    """

    def __init__(self, detector: Detector, facts: FactAnalyzer) -> None:
        self.detector = detector
        self._facts = facts
        self._known: OrderedDict[tuple[Case, str], Grade] = OrderedDict()

    async def grade(self, cases: Sequence[Case], rewrites: Sequence[str]) -> list[Grade]:
        """The grades, in order; `rewrites` still hold their placeholders.

        Raises InstrumentError when an instrument behind an endpoint fails.
        """
        asked = list(zip(cases, rewrites, strict=True))
        grades = {pair: self._known[pair] for pair in asked if pair in self._known}
        missing = [pair for pair in dict.fromkeys(asked) if pair not in grades]
        for start in range(0, len(missing), AT_ONCE):
            chunk = missing[start : start + AT_ONCE]
            found = await asyncio.gather(*(self._graded(case, text) for case, text in chunk))
            grades.update(zip(chunk, found, strict=True))
        for pair in missing:
            self._known[pair] = grades[pair]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return [grades[pair] for pair in asked]

    async def _graded(self, case: Case, rewrite: str) -> Grade:
        protected, space = case.protected, case.target.space
        intact = protected.intact(rewrite)
        text = (protected.restore(rewrite) if intact else _restored(protected, rewrite)).strip()
        wrong = faults(case.original, text)
        if wrong == EMPTY:
            zero = ValueVector.zero(space)
            return Grade(nearness(zero, case.target), 0.0, 0.0, 0.0, intact, wrong, 0.0, zero.l2(case.target))
        reading = await self.detector.detect(case.query[:MAX_QUERY], text)
        after = measured(reading, space)
        forward = backward = consistency = 0.0
        if intact:  # without its placeholders a rewrite has lost facts, whatever a model thinks of it
            report = await self._facts.compare(case.original, text)
            forward, backward, consistency = report.forward, report.backward, report.consistency
        return Grade(
            value=nearness(after, case.target),
            forward=forward,
            backward=backward,
            consistency=consistency,
            intact=intact,
            faults=wrong,
            length=length_ratio(case.original, text),
            l2=after.l2(case.target),
        )


def nearness(after: ValueVector, target: ValueVector) -> float:
    """Cosine, in [-1, 1]. Nothing has a cosine with a target of zero: it is reached (1) by a text that expresses nothing, and a text
    that expresses one value fully is as far from it (-1) as an opposite is from another target."""
    if target.norm:
        return after.cosine(target)
    return 1.0 - 2.0 * min(1.0, after.norm)


def _restored(protected: Protected, text: str) -> str:
    """`text` with those spans put back that can be told."""
    spans = protected.spans
    return PLACEHOLDER.sub(lambda found: spans[int(found[1]) - 1] if 0 < int(found[1]) <= len(spans) else "", text)
