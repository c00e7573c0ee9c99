"""The grader, with the real instruments."""

from __future__ import annotations

import dataclasses
import random

import pytest

from visa_proxy.detector.base import Detector, Reading
from visa_proxy.facts.base import FactAnalyzer, FactReport
from visa_proxy.server.components import Instruments
from visa_proxy.shield.preserve import protect
from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.rewards.grader import Case, Grade, Grader, nearness
from visa_proxy.training.rewards.scalar import RewardRecipe
from visa_proxy.training.triplets import KINDS, Triplet, degenerate, written
from visa_proxy.training.tuning.prompts import hidden
from visa_proxy.values import ValueVector, load_space

SPACE = load_space("schwartz")
GATED = RewardRecipe(scalarisation="gated", value=3.0, gates=("form", "length", "placeholders"))
SAMPLE = 40


def case_of(triplet: Triplet) -> Case:
    return Case(triplet.query, triplet.answer, protect(triplet.answer), triplet.target)


def as_written(case: Case, text: str) -> str:
    """As a rewriter hands it in: with placeholders, where it has the spans."""
    return hidden(case.protected, text) or text


@pytest.fixture
def grader(instruments: Instruments) -> Grader:
    return Grader(instruments.detector, instruments.facts)


@pytest.fixture(scope="module")
def triplets() -> list[Triplet]:
    return random.Random(7).sample(written(), SAMPLE)


async def test_degenerate_outputs_earn_less_than_the_honest_rewrite(grader: Grader, triplets: list[Triplet]) -> None:
    cases = [case_of(triplet) for triplet in triplets]
    rng = random.Random(3)
    honest = await grader.grade(cases, [as_written(c, t.rewrite) for c, t in zip(cases, triplets, strict=True)])
    assert all(grade.intact and not grade.faults for grade in honest)
    below: list[bool] = []
    for kind in KINDS:
        bad = await grader.grade(cases, [as_written(c, degenerate(t, kind, rng)) for c, t in zip(cases, triplets, strict=True)])
        won = [GATED.total(b) < GATED.total(h) for b, h in zip(bad, honest, strict=True)]
        assert sum(won) >= 0.95 * SAMPLE, kind
        below += won
        assert not any(grade.success(Bounds()) for grade in bad if kind not in ("truncated", "other")), kind
    assert sum(below) >= 0.99 * len(below)


async def test_a_rewrite_is_measured_as_serving_measures_it(grader: Grader, instruments: Instruments) -> None:
    (triplet,) = [t for t in written() if t.id == "a-1-1"]
    case = case_of(triplet)
    (grade,) = await grader.grade([case], [as_written(case, triplet.rewrite)])
    reading = await instruments.detector.detect(triplet.query, triplet.rewrite)
    report = await instruments.facts.compare(triplet.answer, triplet.rewrite)
    measured = reading.values.cleared(0.05)
    assert grade.value == pytest.approx(measured.cosine(triplet.target), abs=1e-3)
    assert grade.l2 == pytest.approx(measured.l2(triplet.target), abs=1e-3) and grade.after.l2(measured) < 1e-3
    answer = (await instruments.detector.detect(triplet.query, triplet.answer)).values.cleared(0.05)
    assert grade.nearer == pytest.approx(answer.l2(triplet.target) - measured.l2(triplet.target), abs=1e-3)
    assert grade.consistency == pytest.approx(report.consistency, abs=1e-3)


async def test_without_its_placeholders_a_rewrite_keeps_no_facts(grader: Grader) -> None:
    answer = "The ticket costs £10 a day. Ask at the desk."
    case = Case("", answer, protect(answer), ValueVector.of(SPACE, {"benevolence": 1}))
    good, lost, twice, literal = await grader.grade(
        [case] * 4,
        [
            "The ticket costs ⟦1⟧ a day. Ask our kind friends at the desk.",
            "The ticket costs a little a day. Ask our kind friends at the desk.",
            "The ticket costs ⟦1⟧ or ⟦1⟧ a day. Ask our kind friends at the desk.",
            "The ticket costs £10 a day. Ask our kind friends at the desk.",
        ],
    )
    assert good.intact and good.consistency > 0.5 and good.value > 0.5
    assert [(g.intact, g.consistency) for g in (lost, twice, literal)] == [(False, 0.0)] * 3


async def test_a_text_without_placeholders_gets_the_grade_of_one_with_them(grader: Grader) -> None:
    answer = 'The ticket "Day Out" costs £10 a day. Ask at the desk.'
    case = Case("", answer, protect(answer), ValueVector.of(SPACE, {"benevolence": 1}))
    (hidden_,) = await grader.grade([case], ["The ticket ⟦1⟧ costs ⟦2⟧ a day. Ask our kind friends at the desk."])
    plain, other = await grader.grade_texts(
        [case] * 2,
        [
            'The ticket "Day Out" costs £10 a day. Ask our kind friends at the desk.',
            "The ticket “Day Out” costs £10 a day. Ask our kind friends at the desk.",
        ],
    )
    assert plain == hidden_ and plain.intact
    # Another system's quotation marks are a span lost, and no reason to look away from the facts.
    assert not other.intact and other.forward > 0.5 and not other.success(Bounds(-1, 0, -2))


async def test_a_rewrite_that_moves_away_is_told_from_one_that_comes_nearer(grader: Grader) -> None:
    answer = "Ask at the desk. It opens at nine."
    case = Case("", answer, protect(answer), ValueVector.of(SPACE, {"benevolence": 1}))
    near, echo, nothing = await grader.grade([case] * 3, ["Ask our kind friends at the desk. It opens at nine.", answer, ""])
    assert near.nearer > 0.25 and echo.nearer == 0 and abs(nothing.nearer) < 0.1
    against = dataclasses.replace(case, target=ValueVector.of(SPACE, {"benevolence": -1}))
    (far,) = await grader.grade([against], ["Ask our kind friends at the desk. It opens at nine."])
    assert far.nearer < 0


async def test_a_target_of_nothing_is_reached_by_a_neutral_text(grader: Grader) -> None:
    answer = "Above all be safe, never take a risk. The cover has four screws."
    case = Case("", answer, protect(answer), ValueVector.zero(SPACE))
    neutral, loaded = await grader.grade([case] * 2, ["The cover has four screws.", f"Safety first! {answer}"])
    assert neutral.value > 0.9 and loaded.value < 0.5


def test_nearness() -> None:
    one, zero = ValueVector.of(SPACE, {"power": 1}), ValueVector.zero(SPACE)
    assert (nearness(one, one), nearness(zero, one), nearness(zero, zero), nearness(one, zero)) == (1.0, 0.0, 1.0, -1.0)


def test_a_joint_success_needs_all_of_it() -> None:
    good = Grade(0.5, 0.6, 0.6, 0.6, True, (), 1.0, 0.1, 0.25, ValueVector.zero(SPACE))
    assert good.success(Bounds())
    changes = ({"value": 0.49}, {"consistency": 0.59}, {"nearer": 0.24}, {"intact": False}, {"faults": ("unchanged",)})
    for change in changes:
        assert not dataclasses.replace(good, **change).success(Bounds())


class Counting:
    """Passes on, and counts."""

    def __init__(self, detector: Detector, facts: FactAnalyzer) -> None:
        self.space = detector.space
        self.asked = 0
        self._detector = detector
        self._facts = facts

    async def detect(self, query: str, answer: str) -> Reading:
        self.asked += 1
        return await self._detector.detect(query, answer)

    async def compare(self, original: str, rewritten: str) -> FactReport:
        self.asked += 1
        return await self._facts.compare(original, rewritten)


async def test_the_same_rewrite_is_graded_once(instruments: Instruments) -> None:
    counting = Counting(instruments.detector, instruments.facts)
    grader = Grader(counting, counting)
    answer = "Ask at the desk. It opens at nine."
    case, other = (Case("", answer, protect(answer), ValueVector.of(SPACE, {name: 1})) for name in ("benevolence", "power"))
    text = as_written(case, "Ask our kind friends at the desk. It opens at nine.")
    first = await grader.grade([case, case, other], [text, text, text])
    # The answer is measured once, and the rewrite once for each target.
    assert counting.asked == 1 + 2 * 2 and first[0] == first[1] != first[2]
    assert await grader.grade([case], [text]) == first[:1] and counting.asked == 5
