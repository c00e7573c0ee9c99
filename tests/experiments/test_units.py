"""Requests become figures of units."""

from __future__ import annotations

import numpy as np
import pytest

from tests.experiments.made import START, row
from visa_proxy.experiments.metrics import METRICS
from visa_proxy.experiments.units import gather, moments


def test_a_unit_with_many_requests_counts_once() -> None:
    rows = [row(1, "calm", score=1.0, day=i) for i in range(9)] + [row(2, "calm", score=-0.5), row(3, "bold", score=0.25)]
    sample = gather(rows, ["calm", "bold"])
    calm, bold = sample.by_arm(sample.series(METRICS["feedback"]))
    assert sorted(calm) == [-0.5, 1.0] and list(bold) == [0.25]
    assert list(sample.units()) == [2, 1] and list(sample.requests()) == [10, 1]


def test_requests_without_the_metric_say_nothing_of_it() -> None:
    rows = [row(1, "calm", score=0.5, day=0), row(1, "calm", day=1), row(2, "calm")]
    sample = gather(rows, ["calm"])
    assert list(sample.by_arm(sample.series(METRICS["feedback"]))[0]) == [0.5]
    assert sorted(sample.by_arm(sample.series(METRICS["response"]))[0]) == [0.0, 0.5]


def test_a_unit_belongs_to_its_first_arm() -> None:
    rows = [
        row(1, "bold", score=1, day=3),
        row(1, "calm", score=0, day=1),
        row(1, "bold", score=1, day=2),
        row(2, "bold", score=1),
    ]
    sample = gather(rows, ["calm", "bold"])
    calm, bold = sample.by_arm(sample.series(METRICS["feedback"]))
    assert (list(calm), list(bold)) == ([0.0], [1.0])
    assert (sample.crossed, sample.left_out) == (1, 2)


def test_feedback_is_known_when_it_comes_and_all_else_when_the_answer_leaves() -> None:
    rows = [row(1, "calm", score=1, day=1, later=3 * 86_400), row(2, "calm", score=0.5, day=2)]
    sample = gather(rows, ["calm"])
    assert list(sample.series(METRICS["feedback"]).value) == [0.5, 1.0]
    assert list(sample.series(METRICS["latency"]).at) == [START + 86_400, START + 2 * 86_400]


@pytest.mark.parametrize(
    ("status", "before", "after", "similarity", "gain"),
    [
        ("adapted", 0.25, 0.75, 0.75, 0.5),
        ("fallback:facts", 0.25, None, 0.25, 0.0),
        ("aligned", 0.96, None, 0.96, 0.0),
        ("passthrough", None, None, None, None),
    ],
)
def test_similarity_is_that_of_what_the_client_got(
    status: str, before: float | None, after: float | None, similarity: float | None, gain: float | None
) -> None:
    one = row(1, "calm", status=status, similarity_before=before, similarity_after=after, consistency=0.9)
    assert METRICS["similarity"].value(one) == similarity and METRICS["gain"].value(one) == gain
    assert METRICS["consistency"].value(one) == (0.9 if status == "adapted" else None)
    assert METRICS["adapted"].value(one) == (status == "adapted")
    assert METRICS["fallback"].value(one) == status.startswith("fallback")


def test_thumbs_are_up_down_or_none() -> None:
    values = [METRICS["thumbs"].value(row(1, "calm", thumbs=thumbs, score=0.0)) for thumbs in ("up", "down", None)]
    assert values == [1.0, 0.0, None]


def test_moments_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    values, arm = rng.normal(3, 2, 90), np.array([0, 1, 1] * 30)
    found = moments(values, arm, 3)
    assert list(found.n) == [30, 60, 0]
    assert found.mean[:2] == pytest.approx([values[arm == i].mean() for i in (0, 1)])
    assert found.variance[:2] == pytest.approx([values[arm == i].var(ddof=1) for i in (0, 1)])
    assert (found.mean[2], found.variance[2]) == (0, 0)
    assert moments(np.array([0.1 + 0.2, 0.3, 0.3]), np.zeros(3, np.int64), 1).variance[0] == 0  # rounding is no spread
