"""Sample-ratio mismatch: the figures by hand and by scipy, the alarm by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from visa_proxy.experiments.balance import ALARM, KAPPA, balance

HALVES = {"calm": 1.0, "bold": 1.0}


def test_chi_square_by_hand() -> None:
    found = balance({"calm": 40, "bold": 60}, HALVES, assumed=False)
    assert found.p == pytest.approx(0.0455, abs=5e-5)  # (40-50)²/50 + (60-50)²/50 = 4 with one degree of freedom
    assert found.expected == {"calm": 0.5, "bold": 0.5} and not found.alarm


@pytest.mark.parametrize(("calm", "bold", "share"), [(45, 55, 0.5), (300, 100, 0.7), (0, 40, 0.5)])
def test_the_always_valid_p_is_the_bayes_factor_of_a_beta_mixture(calm: int, bold: int, share: float) -> None:
    n = calm + bold
    factor = betabinom.pmf(calm, n, KAPPA * share, KAPPA * (1 - share)) / binom.pmf(calm, n, share)
    found = balance({"calm": calm, "bold": bold}, {"calm": share, "bold": 1 - share}, assumed=False)
    assert found.always_p == pytest.approx(min(1, 1 / factor), rel=1e-6)


def test_it_rings_at_45_to_55_of_ten_thousand() -> None:
    found = balance({"calm": 4500, "bold": 5500}, HALVES, assumed=False)
    assert found.alarm and found.always_p is not None and found.always_p < 1e-15
    assert not balance({"calm": 4950, "bold": 5050}, HALVES, assumed=False).alarm


def test_it_rings_in_at_most_one_of_a_hundred_honest_experiments_looked_at_daily() -> None:
    rng = np.random.default_rng(1)
    weights = {"a": 0.45, "b": 0.45, "holdout": 0.1}
    arrivals = rng.multinomial(1000, list(weights.values()), size=(1000, 10)).cumsum(axis=1)
    alarms = chi = 0
    for run in arrivals:
        found = [balance(dict(zip(weights, map(int, day), strict=True)), weights, assumed=False) for day in run]
        alarms += any(day.alarm for day in found)
        chi += any(day.p is not None and day.p <= ALARM for day in found)
    assert alarms <= 0.01 * 1000
    assert chi > 0.02 * 1000  # the same threshold on the test for one look would ring too often


def test_an_arm_that_nobody_got_counts_and_an_unknown_one_does_not() -> None:
    assert balance({"bold": 200}, HALVES, assumed=False).alarm
    assert not balance({"calm": 100, "bold": 100, "gone": 500}, HALVES, assumed=False).alarm


def test_nothing_is_said_of_nothing() -> None:
    for units, weights in (({}, HALVES), ({"calm": 5}, {"calm": 1.0})):
        found = balance(units, weights, assumed=True)
        assert (found.p, found.always_p, found.alarm) == (None, None, False)
    assert balance({"calm": 3, "bold": 4}, HALVES, assumed=False).p is None  # 3.5 expected: too few for chi-square
