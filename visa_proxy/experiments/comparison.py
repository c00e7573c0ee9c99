"""One arm against the control, on one metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from visa_proxy.experiments.estimates import Interval, binary
from visa_proxy.experiments.metrics import Metric
from visa_proxy.experiments.power import detectable, every_look, one_look, units_needed
from visa_proxy.experiments.sequential import START, p_value, squared_errors
from visa_proxy.experiments.units import Array, Moments, moments
from visa_proxy.optional import need

CLEAR: Final = 3.0
"""A lift is told in percent of the control where that is this many standard errors above zero: dividing by less says nothing."""


@dataclass(frozen=True)
class Verdict:
    """One way to judge a difference."""

    interval: Interval | None
    """Of the difference, at 1 - alpha over the number of comparisons. None where there is too little to say."""
    p: float | None
    """Two-sided, times the number of comparisons (Bonferroni), as the interval is wider for it: p is below alpha where the interval leaves
    out zero, but for a sliver in the two-proportion test, whose interval has errors of its own."""
    relative: Interval | None
    """Of the lift relative to the control, by the delta method."""
    detectable: float | None
    """The difference that would be found with 80 % power at the present size."""
    needed: int | None
    """Units in both arms together that find the wanted effect with 80 % power, at the present split. None unless one was given."""


@dataclass(frozen=True)
class Comparison:
    """An arm against the control. Positive: the arm has more."""

    units: int
    """Units in both arms together that have the metric."""
    difference: float | None
    relative: float | None
    """The difference divided by the control's mean: 0.1 is 10 % more. None where that means nothing."""
    method: str
    """Of `fixed`: the name of the test."""
    fixed: Verdict
    """One look, at a size fixed in advance. Looking daily until this says yes finds differences that are not there."""
    always: Verdict
    """Always valid: may be looked at every day; see `sequential`."""


NONE: Final = Verdict(None, None, None, None, None)


def compare(
    arm: Array, control: Array, metric: Metric, *, alpha: float, comparisons: int = 1, effect: float | None = None
) -> Comparison:
    """Means of units, of the arm and of the control; `alpha` is shared among `comparisons` (Bonferroni).

    `effect` > 0: a difference whose `needed` size is asked for.
    """
    n = len(arm) + len(control)
    if not len(arm) or not len(control):
        return Comparison(n, None, None, "", NONE, NONE)
    both = moments(np.concatenate([arm, control]), np.repeat([0, 1], [len(arm), len(control)]), 2)
    level, difference = alpha / comparisons, float(both.mean[0] - both.mean[1])
    errors, beside = squared_errors(both, 1, rate=metric.kind == "rate")
    careful = np.array([errors[0], beside[0]])
    lift = _lift(both.mean, careful, metric)
    judge = _Judge(both.mean, lift, n, level, comparisons, effect)
    method, interval, p = _fixed(arm, control, both, metric, level)
    fixed = judge.verdict(interval, p, both.variance / both.n, sequential=False) if interval is not None else NONE
    if min(len(arm), len(control)) < START or careful.sum() == 0:
        return Comparison(n, difference, lift, method, fixed, NONE)
    error = math.sqrt(float(careful.sum()))
    interval, p = possible(difference, every_look(n, level) * error, metric), float(p_value(difference / error, n))
    return Comparison(n, difference, lift, method, fixed, judge.verdict(interval, p, careful, sequential=True))


@dataclass(frozen=True)
class _Judge:
    """What both ways to judge a pair share."""

    mean: Array
    """Of the arm and of the control."""
    lift: float | None
    units: int
    level: float
    comparisons: int
    effect: float | None

    def verdict(self, interval: Interval, p: float | None, squared: Array, *, sequential: bool) -> Verdict:
        """`squared`: the squared standard errors of both means, by which it is judged."""
        critical = every_look(self.units, self.level) if sequential else one_look(self.level)
        error = math.sqrt(float(squared.sum()))
        needed = None
        if self.effect is not None and error > 0:
            needed = units_needed(self.effect, error, self.units, self.level, sequential=sequential)
        return Verdict(
            interval,
            None if p is None else min(1.0, p * self.comparisons),
            self._relative(squared, critical),
            detectable(error, critical) if error > 0 else None,
            needed,
        )

    def _relative(self, squared: Array, critical: float) -> Interval | None:
        if self.lift is None or not squared.any():
            return None
        arm, control = (float(mean) for mean in self.mean)
        reach = critical * math.sqrt(float(squared[0]) / control**2 + arm**2 * float(squared[1]) / control**4)
        return Interval(self.lift - reach, self.lift + reach)


def possible(difference: float, reach: float, metric: Metric) -> Interval:
    """`difference` ± `reach`, cut off at what a difference of the metric can be."""
    most = metric.high - metric.low
    return Interval(max(difference - reach, -most), min(difference + reach, most))


def _fixed(arm: Array, control: Array, both: Moments, metric: Metric, level: float) -> tuple[str, Interval | None, float | None]:
    """The test for one look: its name, the interval of the difference at 1 - `level`, p."""
    if min(len(arm), len(control)) < 2:
        return "", None, None
    if metric.kind == "rate" and binary(arm) and binary(control):
        return "two-proportion z", *_proportions(arm, control, level)
    if not both.variance.any():
        return "", None, None
    weighted = need("statsmodels.stats.weightstats", extra="report")
    means = weighted.CompareMeans(weighted.DescrStatsW(arm), weighted.DescrStatsW(control))
    p = float(means.ttest_ind(usevar="unequal")[1])
    low, high = means.tconfint_diff(alpha=level, usevar="unequal")
    return "Welch t", Interval(float(low), float(high)), p


def _proportions(arm: Array, control: Array, level: float) -> tuple[Interval, float | None]:
    """The pooled two-proportion z test, and Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10).

    Where nobody did, or everybody, the pooled error is zero and there is no p.
    """
    proportion = need("statsmodels.stats.proportion", extra="report")
    ups, sizes = [float(arm.sum()), float(control.sum())], [len(arm), len(control)]
    p = float(proportion.proportions_ztest(ups, sizes)[1]) if 0 < sum(ups) < sum(sizes) else None
    low, high = proportion.confint_proportions_2indep(ups[0], sizes[0], ups[1], sizes[1], method="newcomb", alpha=level)
    return Interval(float(low), float(high)), p


def _lift(mean: Array, squared: Array, metric: Metric) -> float | None:
    """How much more than the control, in shares of it; None where that means nothing."""
    arm, control = (float(each) for each in mean)
    if not metric.proportional or control <= 0 or control <= CLEAR * math.sqrt(float(squared[1])):
        return None
    return arm / control - 1
