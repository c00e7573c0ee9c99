"""Power: the formula against statsmodels, and what is stated against what is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower

from tests.experiments.made import daily
from visa_proxy.experiments.comparison import compare
from visa_proxy.experiments.metrics import METRICS
from visa_proxy.experiments.power import POWER, detectable, every_look, one_look, power, units_needed

SCORE = METRICS["feedback"]
RUNS, UNITS = 600, 150
"""Units in each arm."""
BINOMIAL = 3.5 * math.sqrt(POWER * (1 - POWER) / RUNS)
"""What a share of RUNS may be off by chance."""


@pytest.mark.parametrize(("n", "deviation", "alpha"), [(50, 1.0, 0.05), (400, 0.3, 0.01), (20_000, 0.8, 0.025)])
def test_one_look_is_as_statsmodels_has_it(n: int, deviation: float, alpha: float) -> None:
    error = deviation * math.sqrt(2 / n)
    least = detectable(error, one_look(alpha))
    solver = NormalIndPower()
    found = solver.solve_power(nobs1=n, alpha=alpha, power=POWER, ratio=1.0) * deviation
    assert least == pytest.approx(found, rel=1e-4)
    assert power(least, error, one_look(alpha)) == pytest.approx(POWER)
    wanted = solver.solve_power(effect_size=0.1 / deviation, alpha=alpha, power=POWER, ratio=1.0) * 2
    assert units_needed(0.1, error, 2 * n, alpha, sequential=False) == pytest.approx(wanted, abs=1.01, rel=1e-4)


def test_units_needed_are_those_at_which_the_effect_is_detectable() -> None:
    error = 0.4 * math.sqrt(2 / 100)
    needed = units_needed(0.05, error, 200, 0.05, sequential=True)
    assert needed is not None
    at = {n: detectable(error * math.sqrt(200 / n), every_look(n, 0.05)) for n in (needed, needed - 2)}
    assert at[needed] <= 0.05 < at[needed - 2]
    assert units_needed(0.05, error, 200, 0.05, sequential=False) < needed  # type: ignore[operator]
    assert units_needed(1e-9, error, 200, 0.05, sequential=True) is None


def test_a_planted_effect_is_found_with_the_power_stated_at_one_look() -> None:
    rng = np.random.default_rng(3)
    effect = detectable(0.4 * math.sqrt(2 / UNITS), one_look(0.05))
    found = 0
    stated: list[float] = []
    for _ in range(RUNS):
        one = compare(rng.normal(0.1 + effect, 0.4, UNITS), rng.normal(0.1, 0.4, UNITS), SCORE, alpha=0.05)
        assert one.fixed.p is not None and one.difference is not None and one.fixed.detectable is not None
        found += one.fixed.p <= 0.05 and one.difference > 0
        stated.append(one.fixed.detectable)
    assert abs(found / RUNS - POWER) <= BINOMIAL
    assert np.median(stated) == pytest.approx(effect, rel=0.01)  # what reports state is what was planted


def test_a_planted_effect_is_found_with_at_least_the_power_stated_under_daily_looks() -> None:
    rng = np.random.default_rng(5)
    day, arm = np.repeat(np.arange(30) + 0.5, 10), np.tile([0, 1], UNITS)
    effect = detectable(0.4 * math.sqrt(2 / UNITS), every_look(2 * UNITS, 0.05))
    runs = [daily(rng.normal(0.1, 0.4, len(day)) + effect * arm, day, arm) for _ in range(RUNS)]
    at_the_end = sum(run[-1].difference[1] > run[-1].radius[1] for run in runs) / RUNS
    ever = sum(any(look.difference[1] > look.radius[1] for look in run) for run in runs) / RUNS
    assert abs(at_the_end - POWER) <= BINOMIAL
    assert ever >= at_the_end
    half = [daily(rng.normal(0.1, 0.4, len(day)) + effect / 2 * arm, day, arm) for _ in range(RUNS)]
    expected = power(effect / 2, 0.4 * math.sqrt(2 / UNITS), every_look(2 * UNITS, 0.05))
    assert abs(sum(run[-1].difference[1] > run[-1].radius[1] for run in half) / RUNS - expected) <= BINOMIAL
    assert expected < 0.3
