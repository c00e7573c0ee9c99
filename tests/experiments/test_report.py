"""Rows in, a report out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.experiments.made import START, row, scored
from visa_proxy.errors import RequestError
from visa_proxy.experiments.report import analyse
from visa_proxy.store.rows import Measured

RNG = np.random.default_rng(8)


def strict(report: Any) -> Any:
    """Through JSON, which refuses NaN."""
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


def test_a_better_arm_is_called_better() -> None:
    rows = scored({"calm": RNG.normal(0.1, 0.3, 500), "bold": RNG.normal(0.3, 0.3, 500)})
    found = strict(analyse(rows, tenant="acme", experiment="voice", weights={"calm": 0.5, "bold": 0.5}))
    calm, bold = found["arms"]
    assert (calm["name"], calm["units"], calm["requests"], calm["against_control"]) == ("calm", 500, 500, None)
    score = bold["against_control"]["feedback"]
    assert score["always"]["interval"]["low"] > 0.1 and score["always"]["p"] < 1e-6
    assert found["verdicts"][0].startswith("bold against calm, score: better by +0.") and found["cautions"] == []
    assert found["primary"] == "feedback" and not found["balance"]["assumed"] and found["first"] == START


def test_where_less_is_better_less_is_better() -> None:
    rows = [row(i, "ab"[i % 2], latency_s=float(RNG.lognormal(0 if i % 2 else 1, 0.3))) for i in range(400)]
    assert analyse(rows, metric="latency").verdicts[0].startswith("b against a, mean latency: better by -1.")


def test_no_difference_says_what_would_have_been_found() -> None:
    report = analyse(scored({"a": RNG.normal(0, 0.3, 300), "b": RNG.normal(0, 0.3, 300)}), effect=0.02)
    assert "no difference shown" in report.verdicts[0] and "would be found with 80 % power" in report.verdicts[0]
    assert report.arms[1].against_control is not None
    found = report.arms[1].against_control["feedback"]
    assert found.always.needed is not None and found.fixed.needed is not None
    assert found.always.needed > found.fixed.needed > 600
    assert report.arms[1].against_control["latency"].always.needed is None  # the effect is one of the primary metric


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1, "a", score=1.0)],
        [row(1, "a", score=1.0), row(2, "b", score=-1.0)],
        [row(i, "ab"[i % 2], thumbs="up") for i in range(4)],
        [row(i, "ab"[i % 2], score=0.5, latency_s=1.0) for i in range(200)],
        [row(i, "a" if i else "b") for i in range(200)],
    ],
    ids=["none", "one", "one each", "all up", "no spread", "199 to 1"],
)
def test_little_data_gives_nulls_and_never_nan(rows: list[Measured]) -> None:
    found = strict(analyse(rows, tenant="acme", effect=0.1))
    assert found["requests"] == len(rows)
    assert all(arm["metrics"]["feedback"]["interval"] is None for arm in found["arms"] if arm["metrics"]["feedback"]["units"] < 2)
    assert not any("better" in verdict or "worse" in verdict for verdict in found["verdicts"])


def test_arms_of_the_policy_come_first_and_are_there_without_units() -> None:
    rows = scored({"zest": [0.1, 0.2], "gone": [0.3, 0.1], "holdout": [0.0, 0.1]})
    report = analyse(rows, weights={"zest": 0.4, "plain": 0.5, "holdout": 0.1})
    assert [arm.name for arm in report.arms] == ["zest", "plain", "gone", "holdout"]
    assert [arm.against_control is None for arm in report.arms] == [True, False, False, True]
    assert (report.control, report.comparisons, report.arms[1].units) == ("zest", 2, 0)
    assert any("Not in the policy" in line and "gone" in line for line in report.cautions)
    other = analyse(rows, weights={"zest": 0.4, "plain": 0.5, "holdout": 0.1}, control="holdout")
    assert [arm.name for arm in other.arms] == ["holdout", "zest", "plain", "gone"] and other.comparisons == 3


def test_a_mismatch_of_the_sample_ratio_takes_the_verdict_away() -> None:
    rows = scored({"calm": RNG.normal(0.1, 0.3, 700), "bold": RNG.normal(0.3, 0.3, 400)})
    report = analyse(rows, weights={"calm": 0.5, "bold": 0.5})
    assert report.balance.alarm and "no verdict" in report.verdicts[0]
    assert report.cautions[0].startswith("SAMPLE RATIO MISMATCH") and "63.6 % for 50.0 %" in report.cautions[0]
    assert not analyse(rows, weights={"calm": 7, "bold": 4}).balance.alarm


def test_cautions_name_crossed_units_assumed_weights_and_few_units() -> None:
    rows = [row(i, "ab"[i % 2], score=0.1 * (i % 7)) for i in range(20)] + [row(0, "b", day=1), row(1, "a", day=1)]
    report = analyse(rows)
    assert (report.crossed, report.left_out, report.requests) == (2, 2, 20)
    text = " ".join(report.cautions)
    assert "equal ones are assumed" in text and "more than one arm" in text and "Fewer than 30 units: a, b" in text


def test_feedback_that_comes_more_often_from_one_arm_is_pointed_out() -> None:
    rows = [
        row(i, "ab"[i % 2], score=float(RNG.normal(0, 0.3)) if RNG.random() < (0.2, 0.6)[i % 2] else None) for i in range(600)
    ]
    assert any("Feedback is given more or less often" in line and ": b" in line for line in analyse(rows).cautions)
    even = [row(i, "ab"[i % 2], score=float(RNG.normal(0, 0.3)) if RNG.random() < 0.4 else None) for i in range(600)]
    assert not any("more or less often" in line for line in analyse(even).cautions)


def test_other_experiments_and_tenants_are_left_out() -> None:
    rows = scored({"a": [0.1] * 5}) + scored({"a": [0.2] * 3}, experiment="length") + scored({"a": [0.2] * 2}, tenant="other")
    assert analyse(rows, tenant="acme", experiment="voice").requests == 5
    assert analyse([row(1, "", experiment="")]).requests == 0


def test_the_primary_metric_is_feedback_else_thumbs_else_similarity() -> None:
    assert analyse([row(1, "a", score=0.1, thumbs="up")]).primary == "feedback"
    assert analyse([row(1, "a", thumbs="up")]).primary == "thumbs"
    assert analyse([row(1, "a")]).primary == "similarity"
    assert analyse([row(1, "a", score=0.1)], metric="adapted").primary == "adapted"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control": "c"}, "there is no arm 'c'; allowed: a, b"),
        ({"metric": "joy"}, "there is no metric 'joy'; allowed: feedback, thumbs, response, similarity"),
        ({"alpha": 0.5}, "alpha: found 0.5, allowed: more than 0 and less than 0.5"),
        ({"effect": 0.0}, "effect: found 0, allowed: more than 0"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        analyse(scored({"a": [0.1, 0.2], "b": [0.2, 0.3]}), **options)
    assert caught.value.message.startswith(message)
