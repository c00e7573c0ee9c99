"""Arm against control."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from visa_proxy.experiments.comparison import NONE, compare
from visa_proxy.experiments.metrics import METRICS
from visa_proxy.experiments.sequential import boundary

SCORE, THUMBS, LATENCY, ADAPTED = (METRICS[name] for name in ("feedback", "thumbs", "latency", "adapted"))
RNG = np.random.default_rng(4)


def rates(ups: int, n: int) -> np.ndarray:
    return np.array([1.0] * ups + [0.0] * (n - ups))


def test_means_are_compared_by_welch() -> None:
    arm, control = RNG.normal(0.3, 0.2, 40), RNG.normal(0.1, 0.5, 90)
    found = compare(arm, control, SCORE, alpha=0.05)
    expected = stats.ttest_ind(arm, control, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.method == "Welch t" and found.fixed.p == pytest.approx(expected.pvalue)
    assert found.fixed.interval is not None
    assert (found.fixed.interval.low, found.fixed.interval.high) == pytest.approx((low, high))
    assert found.difference == pytest.approx(arm.mean() - control.mean())


def test_rates_are_compared_by_the_pooled_z_test() -> None:
    found = compare(rates(60, 100), rates(45, 100), THUMBS, alpha=0.05)
    z = 0.15 / math.sqrt(0.525 * 0.475 * 2 / 100)
    assert found.method == "two-proportion z" and found.fixed.p == pytest.approx(2 * stats.norm.sf(z), rel=1e-6)
    # Newcombe by hand from Wilson's 0.5020 … 0.6906 and 0.3561 … 0.5476: 0.15 - sqrt(0.098² + 0.0976²), 0.15 + sqrt(0.0906² + 0.0939²)
    assert found.fixed.interval is not None
    assert (found.fixed.interval.low, found.fixed.interval.high) == pytest.approx((0.0117, 0.2805), abs=2e-4)
    assert found.relative == pytest.approx(1 / 3)


def test_the_always_valid_interval_by_hand() -> None:
    arm = RNG.normal(0.3, 0.4, 500)
    found = compare(arm, arm[::-1] - 0.2, SCORE, alpha=0.05).always  # of one variance: nothing is borrowed
    radius = 3.0351 * math.sqrt(2 * arm.var(ddof=1) / 500)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((0.2 - radius, 0.2 + radius), abs=1e-4)


def test_interval_and_p_agree_and_comparisons_share_the_alpha() -> None:
    arm, control = RNG.normal(0.14, 0.4, 300), RNG.normal(0.0, 0.4, 300)
    one, three = (compare(arm, control, SCORE, alpha=0.05, comparisons=k) for k in (1, 3))
    assert one.fixed.p is not None and one.always.p is not None
    assert three.fixed.p == pytest.approx(3 * one.fixed.p) and three.always.p == pytest.approx(min(1, 3 * one.always.p))
    for found in (one, three):
        for way in (found.fixed, found.always):
            assert way.interval is not None and way.p is not None
            assert (0 not in way.interval) == (way.p < 0.05)
    assert three.always.interval is not None and one.always.interval is not None
    ratio = (three.always.interval.high - three.always.interval.low) / (one.always.interval.high - one.always.interval.low)
    assert ratio == pytest.approx(float(boundary(600, 0.05 / 3) / boundary(600, 0.05)))


def test_a_relative_lift_covers_the_truth_and_is_told_only_of_a_clear_control() -> None:
    covered = 0
    for _ in range(300):
        found = compare(RNG.lognormal(0.2, 0.5, 200), RNG.lognormal(0, 0.5, 200), LATENCY, alpha=0.05)
        assert found.fixed.relative is not None
        covered += math.exp(0.2) - 1 in found.fixed.relative
    assert 0.91 * 300 <= covered <= 0.985 * 300
    assert compare(rates(5, 100), rates(1, 100), ADAPTED, alpha=0.05).relative is None
    assert (
        compare(RNG.normal(1, 1, 50), RNG.normal(1, 1, 50), SCORE, alpha=0.05).relative is None
    )  # a score's zero is not nothing


def test_too_little_gives_no_interval_and_no_number_that_is_none() -> None:
    some = RNG.normal(0, 1, 40)
    assert compare(np.array([]), some, SCORE, alpha=0.05).difference is None
    alone = compare(np.array([0.5]), some, SCORE, alpha=0.05)
    assert alone.difference is not None and (alone.fixed, alone.always) == (NONE, NONE)
    few = compare(some[:29], some, SCORE, alpha=0.05)
    assert few.fixed.interval is not None and few.always == NONE
    same = compare(np.full(50, 0.8), np.full(50, 0.7), SCORE, alpha=0.05)
    assert same.difference == pytest.approx(0.1) and (same.fixed, same.always) == (NONE, NONE)


def test_all_against_none_is_a_difference_and_all_against_all_is_none() -> None:
    apart = compare(rates(60, 60), rates(0, 60), ADAPTED, alpha=0.05)
    assert apart.always.interval is not None and apart.always.interval.low > 0.5
    assert apart.fixed.p is not None and apart.fixed.p < 1e-20
    alike = compare(rates(60, 60), rates(60, 60), ADAPTED, alpha=0.05)
    assert alike.fixed.p is None and alike.always.p == 1 and alike.always.interval is not None and 0 in alike.always.interval


def test_one_arm_that_never_varies_is_no_hindrance() -> None:
    found = compare(np.zeros(50), RNG.normal(0.5, 0.2, 50), METRICS["gain"], alpha=0.05)
    assert found.fixed.p is not None and found.fixed.p < 1e-10 and found.always.p is not None and found.always.p < 0.01
