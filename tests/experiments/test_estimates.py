"""Figures of one arm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from visa_proxy.experiments.estimates import estimate, quantile
from visa_proxy.experiments.metrics import METRICS

SCORE, THUMBS, LATENCY = METRICS["feedback"], METRICS["thumbs"], METRICS["latency"]


def test_a_mean_has_students_interval() -> None:
    values = np.array([0.1, 0.4, -0.2, 0.3, 0.4])
    found = estimate(values, SCORE, 0.1)
    expected = stats.t.interval(0.9, 4, loc=0.2, scale=values.std(ddof=1) / np.sqrt(5))
    assert found.mean == pytest.approx(0.2) and found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)


def test_a_rate_has_wilsons_interval() -> None:
    found = estimate(np.array([1.0] * 8 + [0.0] * 2), THUMBS, 0.05)
    expected = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))
    assert found.interval.low == pytest.approx(0.4902, abs=5e-5)  # (0.8 + 1.92/10 - 1.96·sqrt(0.016 + 0.0096)) / 1.384


def test_a_rate_of_units_with_several_answers_is_a_mean() -> None:
    found = estimate(np.array([0.9, 1.0, 1.0]), THUMBS, 0.05)
    assert found.interval is not None and found.interval.high == 1.0 and found.interval.low == pytest.approx(0.8232, abs=1e-4)


def test_little_is_known_of_little() -> None:
    assert estimate(np.array([]), SCORE, 0.05).mean is None
    alone = estimate(np.array([0.5]), SCORE, 0.05)
    assert (alone.units, alone.mean, alone.interval) == (1, 0.5, None)
    assert estimate(np.array([0.8] * 50), SCORE, 0.05).interval is None
    assert estimate(np.array([0.0] * 50), THUMBS, 0.05).interval is not None  # Wilson's: up to 7 %
    nothing, one = quantile(np.array([]), np.array([], np.int64), 0.5, 0.05), quantile(np.array([2.0]), np.array([7]), 0.5, 0.05)
    assert nothing.value is None and (one.value, one.interval) == (2.0, None)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_interval_of_a_quantile_covers_it_although_requests_of_a_unit_are_alike(share: float) -> None:
    rng = np.random.default_rng(2)
    covered = blind = 0
    truth = float(np.exp(stats.norm.ppf(share) * np.sqrt(2)))  # log-normal: variance 1 of the unit, 1 of the request
    for _ in range(400):
        unit = np.repeat(np.arange(150), 8)
        values = np.exp(rng.normal(0, 1, 150)[unit] + rng.normal(0, 1, len(unit)))
        found = quantile(values, unit, share, 0.05).interval
        alone = quantile(values, np.arange(len(values)), share, 0.05).interval
        assert found is not None and alone is not None
        covered += truth in found
        blind += truth in alone
    assert 0.91 * 400 <= covered <= 0.985 * 400
    assert blind < 0.88 * 400  # as if requests were independent: too narrow
