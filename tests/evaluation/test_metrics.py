"""Figures on values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evaluation.samples import case, row
from visa_proxy.evaluation import collect, metrics
from visa_proxy.evaluation.cases import Case, space
from visa_proxy.evaluation.rows import Row
from visa_proxy.evaluation.stats import Bootstrap, Ratio
from visa_proxy.training.rewards.bounds import Bounds

CASES = [case(1, power=1.0), case(2, power=1.0), case(3, power=1.0, security=-0.5)]
ROWS: list[Row] = [
    row({}, {"power": 0.5, "hedonism": 0.3}, 0.9, kept=1, spans=2),  # half of the way, and 0.3 aside
    row({}, {"power": 0.9}, 0.5),  # near, and not consistent enough
    {"error": "timeout"},
]


def values(rows: list[Row], cases: list[Case]) -> dict[str, float]:
    measured = collect.measured(cases, rows)
    return {name: ratio.value for name, ratio in metrics.figures(measured, Bounds()).items()}


def test_figures_by_hand() -> None:
    found = values(ROWS, CASES)
    assert found["consistency"] == pytest.approx(0.7)
    assert found["l2"] == pytest.approx((np.hypot(0.5, 0.3) + 0.1) / 2)
    assert found["cosine"] == pytest.approx((0.5 / np.hypot(0.5, 0.3) + 1) / 2)
    assert found["success"] == 0, "one lost a span, one is not consistent enough, one is an error"
    assert found["paper"] == pytest.approx(2 / 3), "which counts as no success"
    aligned = (1 + 0.5 / np.hypot(0.5, 0.3)) / 2
    assert found["score"] == pytest.approx((aligned + 0.5 / 0.6) / 2)
    assert found["spans"] == pytest.approx(2 / 3)
    assert found["drift"] == pytest.approx(0.3 / (0.5 + 0.9))
    assert found["deviation"] == pytest.approx((0.8 + 0.1) / 10 / 2)
    assert found["changed"] == 1
    off = metrics.deviations(collect.measured(CASES, ROWS))
    assert off[space().index["power"]] == pytest.approx(0.3)
    assert off[space().index["hedonism"]] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("better", "bounds"),
    [
        ({}, Bounds()),
        ({"consistency": 0.59}, Bounds(consistency=0.59)),
        ({"after": {"power": 0.45, "security": 0.5, "hedonism": 0.7}}, Bounds(value=0.45, nearer=-0.1)),
        ({"after": {"power": 0.24}}, Bounds(nearer=0.24)),
        ({"kept": 0}, None),
        ({"fault": "pasted"}, None),
        ({"changed": False}, None),
    ],
)
def test_joint_success_asks_for_everything(better: dict[str, Any], bounds: Bounds | None) -> None:
    given: dict[str, Any] = {"after": {"power": 0.5, "security": 0.5}, "consistency": 0.6} | better
    rows = [row({}, given.pop("after"), given.pop("consistency"), **given)]
    measured = collect.measured(CASES[:1], rows)
    if bounds is not None:
        assert metrics.success(measured, bounds).all()
    assert metrics.success(measured, Bounds()).all() == (not better)


@pytest.mark.parametrize("worse", [{"fault": "pasted"}, {"changed": False}])
def test_neither_a_faulty_form_nor_the_answer_itself_has_a_score(worse: dict[str, Any]) -> None:
    good = row({}, {"power": 0.9}, 0.6)
    found = metrics.score(collect.measured(CASES[:2], [good, good | worse]), Bounds())
    assert list(found) == [1, 0]


def test_who_stays_where_it_was_has_no_success() -> None:
    assert values([row({"power": 0.9}, {"power": 0.9})], CASES[:1])["success"] == 0


def test_the_papers_joint_success() -> None:
    rows = [row({}, {"power": 0.2}, 0.3), row({}, {"power": 0.19}, 0.3), row({}, {"power": 0.2}, 0.29)]
    assert list(metrics.paper_success(collect.measured([CASES[0]] * 3, rows))) == [True, False, False]


def test_the_papers_weights() -> None:
    """Rows of tables 1 and 5: forward, backward, consistency."""
    rows = np.array([[0.8523, 0.8172, 0.8406], [0.8171, 0.7151, 0.7831], [0.8733, 0.8729, 0.8732], [0.7676, 0.9233, 0.8195]])
    assert metrics.weighted(rows[:, 0], rows[:, 1]) == pytest.approx(rows[:, 2], abs=1e-4)


def test_drift_without_gain_is_undefined() -> None:
    assert np.isnan(values([row({}, {"hedonism": 1.0})], CASES[:1])["drift"])
    assert np.isnan(values([row({}, {"power": -1.0, "hedonism": 1.0})], CASES[:1])["drift"])


def test_values_that_no_offset_names_are_taken_from_what_was_measured() -> None:
    plain = Case("p", "t", "", "Yes.", case(power=1.0).target)
    measured = collect.measured([plain], [row({"power": 0.8, "tradition": 0.5}, {})])
    assert [name for name, named in zip(space().names, measured.named[0], strict=True) if named] == ["tradition"]


def test_the_standard_deviation_is_that_of_the_cases() -> None:
    ratio = metrics.figures(collect.measured(CASES, ROWS), Bounds())["consistency"]
    assert metrics.spread(ratio) == pytest.approx(0.2)


def test_all_errors_are_no_crash() -> None:
    found = values([{"error": "timeout"}] * 3, CASES)
    assert found["success"] == 0 and np.isnan(found["consistency"])


def ratio(*numbers: float) -> Ratio:
    return Ratio.mean(np.array(numbers), np.ones(len(numbers), np.bool_))


def test_a_topic_is_drawn_as_a_whole() -> None:
    values = (0.0, 0.0, 1.0, 1.0)
    one = Bootstrap(["a"] * 4).estimate(ratio(*values))
    assert (one.value, one.low, one.high) == (0.5, 0.5, 0.5)
    two = Bootstrap(["a", "a", "b", "b"]).estimate(ratio(*values))
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)


def test_a_difference_is_paired() -> None:
    topics = [str(i) for i in range(30)]
    theirs = np.linspace(0, 1, 30)
    test = Bootstrap(topics).difference(ratio(*(theirs + 0.01)), ratio(*theirs))
    assert test.value == pytest.approx(0.01) and test.low == pytest.approx(0.01) and test.p < 0.01
    same = Bootstrap(topics).difference(ratio(*theirs), ratio(*theirs))
    assert same.value == 0 and same.p == 1


def test_a_difference_is_over_the_cases_that_both_have() -> None:
    some = Ratio.mean(np.array([1.0, np.nan, 0.5]), np.array([True, False, True]))
    assert Bootstrap(["a", "b", "c"]).difference(some, ratio(0.0, 9.0, 0.5)).value == pytest.approx(0.5)
