"""The one grader of rewrites: what training rewards is what evaluation counts (paper, section 3.2.2)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.detector.base import Detector, Reading
from visa_proxy.facts.base import FactAnalyzer, FactReport
from visa_proxy.shield.pipeline import MAX_QUERY
from visa_proxy.shield.preserve import PLACEHOLDER, Protected
from visa_proxy.shield.verify import measured
from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.rewards.form import faults, length_ratio
from visa_proxy.training.rewards.spans import kept
from visa_proxy.values import ValueVector

AT_ONCE: Final = 256
"""Completions being measured at the same time: enough to fill the instruments' batches."""
REMEMBERED: Final = 8192
"""Grades kept, and answers: every reward of a step asks for the same ones."""
NOTHING: Final = FactReport(0.0, 0.0)
"""What is kept of an answer where nothing is compared."""


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
class Grade:
    """One rewrite, measured."""

    value: float
    """-1 … 1: cosine of Ψ(query, y') and v* (paper, Eq. 3); for a v* of zero, see `nearness`."""
    forward: float
    """0 … 1: nothing lost."""
    backward: float
    """0 … 1: nothing added."""
    consistency: float
    """0 … 1: the smaller direction; 0 where a deterministic fact differs, and for a rewrite whose placeholders are not intact."""
    intact: bool
    """Every verbatim span is there, in order; of a rewrite with placeholders, each of them once."""
    faults: tuple[str, ...]
    """What is wrong with its form, see `form.faults`."""
    length: float
    """By the original's; see `form.length_ratio`."""
    l2: float
    """|Ψ(query, y') - v*| (paper, section 4.2)."""
    nearer: float
    """How much less that is than |Ψ(query, y) - v*|, the answer's own; below 0 for one that went away from v*."""
    after: ValueVector
    """Ψ(query, y'), without the noise, in the space of v*."""
    differing: tuple[int, int] = (0, 0)
    """Deterministic facts lost, and gained."""

    def success(self, bounds: Bounds) -> bool:
        """Joint success."""
        met = bounds.met(
            value=self.value,
            consistency=self.consistency,
            nearer=self.nearer,
            intact=self.intact,
            faulty=bool(self.faults),
        )
        return bool(met)


EMPTY: Final = ("empty",)


@dataclass(frozen=True)
class _Handed:
    """A rewrite as a reader gets it."""

    case: Case
    text: str
    intact: bool
    compared: bool
    """Whether the fact analyzer is asked."""


class Grader:
    """Grades rewrites with the instruments that verify them in serving. A rewrite is graded once, however often it is handed in, and so is
    the answer that it is one of.

    The instruments encode a sentence once, and ask nothing about sentences that stand in both texts, so what a grade costs goes by
    what was changed.
    """

    def __init__(self, detector: Detector, facts: FactAnalyzer) -> None:
        self.detector = detector
        self._facts = facts
        self._known: OrderedDict[_Handed, Grade] = OrderedDict()
        self._originals: OrderedDict[tuple[str, str], Reading] = OrderedDict()

    async def grade(self, cases: Sequence[Case], rewrites: Sequence[str]) -> list[Grade]:
        """The grades, in order; `rewrites` still hold their placeholders.

        Raises InstrumentError when an instrument behind an endpoint fails.
        """
        return await self._grades([_restored(case, text) for case, text in zip(cases, rewrites, strict=True)])

    async def grade_texts(self, cases: Sequence[Case], texts: Sequence[str]) -> list[Grade]:
        """The same for texts without placeholders, of whoever never saw one: the spans are looked for, and facts are compared even where
        one is missing. Raises InstrumentError."""
        found = ((case, text, case.protected.spans) for case, text in zip(cases, texts, strict=True))
        return await self._grades(
            [_Handed(case, text.strip(), kept(spans, text) == len(spans), True) for case, text, spans in found]
        )

    async def before(self, case: Case) -> ValueVector:
        """Ψ(query, y): what the answer itself expresses. Raises InstrumentError."""
        key = case.query, case.original
        if key not in self._originals:
            reading = await self.detector.detect(case.query[:MAX_QUERY], case.original)
            self._originals[key] = Reading(reading.values)  # what it says of each sentence is no longer needed
            while len(self._originals) > REMEMBERED:
                self._originals.popitem(last=False)
        return measured(self._originals[key], case.target.space)

    async def _grades(self, asked: Sequence[_Handed]) -> list[Grade]:
        grades = {each: self._known[each] for each in asked if each in self._known}
        missing = [each for each in dict.fromkeys(asked) if each not in grades]
        for start in range(0, len(missing), AT_ONCE):
            chunk = missing[start : start + AT_ONCE]
            # The answers come first, one of each: those who were made from it are graded at the same time.
            answers = {(each.case.query, each.case.original): each.case for each in chunk}
            await asyncio.gather(*map(self.before, answers.values()))
            found = await asyncio.gather(*map(self._graded, chunk))
            grades.update(zip(chunk, found, strict=True))
        for each in missing:
            self._known[each] = grades[each]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return [grades[each] for each in asked]

    async def _graded(self, handed: _Handed) -> Grade:
        case, text, target = handed.case, handed.text, handed.case.target
        wrong = faults(case.original, text, target.space)
        before, after = await self.before(case), ValueVector.zero(target.space)
        report = NOTHING
        if wrong != EMPTY:
            after = measured(await self.detector.detect(case.query[:MAX_QUERY], text), target.space)
            if handed.compared:
                report = await self._facts.compare(case.original, text)
        return Grade(
            value=nearness(after, target),
            forward=report.forward,
            backward=report.backward,
            consistency=report.consistency,
            intact=handed.intact,
            faults=wrong,
            length=length_ratio(case.original, text) if wrong != EMPTY else 0.0,
            l2=after.l2(target),
            nearer=before.l2(target) - after.l2(target),
            after=after,
            differing=(len(report.lost), len(report.gained)),
        )


def nearness(after: ValueVector, target: ValueVector) -> float:
    """Cosine, in [-1, 1]. Nothing has a cosine with a target of zero: it is reached (1) by a text that expresses nothing, and a text
    that expresses one value fully is as far from it (-1) as an opposite is from another target."""
    if target.norm:
        return after.cosine(target)
    return 1.0 - 2.0 * min(1.0, after.norm)


def _restored(case: Case, rewrite: str) -> _Handed:
    """With the spans back that can be told. Without its placeholders a rewrite has lost facts, whatever a model thinks of it."""
    spans, intact = case.protected.spans, case.protected.intact(rewrite)
    text = PLACEHOLDER.sub(lambda found: spans[int(found[1]) - 1] if 0 < int(found[1]) <= len(spans) else "", rewrite)
    return _Handed(case, text.strip(), intact, compared=intact)
