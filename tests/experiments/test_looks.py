"""The experiment day by day."""

from __future__ import annotations

import numpy as np
import pytest

from tests.experiments.made import DAY, daily, scored
from visa_proxy.experiments.looks import MAX_LOOKS, day_ends
from visa_proxy.experiments.report import analyse
from visa_proxy.experiments.sequential import START

RNG = np.random.default_rng(6)


def test_days_end_at_midnight() -> None:
    assert day_ends(0.5 * DAY, 2.5 * DAY) == [DAY, 2 * DAY, 3 * DAY]
    assert day_ends(5 * DAY, 5 * DAY) == [6 * DAY]
    assert day_ends(0.5 * DAY, 3 * DAY) == [DAY, 2 * DAY, 3 * DAY]


def test_a_long_experiment_is_looked_at_less_often() -> None:
    ends = day_ends(0.5 * DAY, 364.5 * DAY)
    assert 50 < len(ends) <= MAX_LOOKS and ends[-1] == 365 * DAY
    assert np.diff(ends) == pytest.approx(np.full(len(ends) - 1, 7 * DAY))


def test_a_look_knows_what_was_known_by_then() -> None:
    day = np.repeat(np.arange(4) + 0.5, 40)
    arm = np.tile([0, 1], 80)
    values = RNG.normal(0, 1, 160) + arm
    seen = daily(values, day, arm, days=4)
    assert [list(look.units) for look in seen] == [[20, 20], [40, 40], [60, 60], [80, 80]]
    assert np.isnan(seen[0].difference).all() and START > 20
    upto = day < 2
    assert seen[1].difference[1] == pytest.approx(values[upto & (arm == 1)].mean() - values[upto & (arm == 0)].mean())
    assert np.isnan(seen[1].difference[0]) and not seen[0].alarms() and seen[3].alarms()


def test_the_last_look_is_the_interval_of_the_report() -> None:
    report = analyse(scored({"calm": RNG.normal(0, 0.3, 400), "bold": RNG.normal(0.1, 0.3, 400), "dry": RNG.normal(0, 0.3, 400)}))
    for arm in report.arms[1:]:
        assert arm.against_control is not None
        last = [point for point in report.days if point.arm == arm.name][-1]
        interval = arm.against_control["feedback"].always.interval
        assert interval is not None and (last.low, last.high) == pytest.approx((interval.low, interval.high))
        assert last.units == 400
