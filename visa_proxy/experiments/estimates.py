"""Figures of one arm, each with its interval at one look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from visa_proxy.experiments.metrics import Metric
from visa_proxy.experiments.units import Array, Indices, moments
from visa_proxy.optional import need


@dataclass(frozen=True)
class Interval:
    """Both ends included; finite."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A mean over units."""

    units: int
    """Units that have the metric."""
    mean: float | None
    """None without units."""
    interval: Interval | None
    """None with fewer than two units, or where all of them have the same mean (but for rates)."""


@dataclass(frozen=True)
class Quantile:
    """A quantile over requests."""

    value: float | None
    interval: Interval | None


NOTHING: Final = Estimate(0, None, None)


def binary(values: Array) -> bool:
    """Every unit is 0 or 1: one request each, or the same in all its requests."""
    return bool(np.all((values == 0) | (values == 1)))


def estimate(values: Array, metric: Metric, alpha: float) -> Estimate:
    """Mean of the units' `values`: Wilson's interval for units of 0 or 1, Student's for others, cut off at what the metric can be."""
    n = len(values)
    if n == 0:
        return NOTHING
    mean = float(values.mean())
    if n < 2:
        return Estimate(n, mean, None)
    if metric.kind == "rate" and binary(values):
        proportion = need("statsmodels.stats.proportion", extra="report")
        low, high = proportion.proportion_confint(float(values.sum()), n, alpha=alpha, method="wilson")
        return Estimate(n, mean, Interval(float(low), float(high)))
    error = math.sqrt(float(moments(values, np.zeros(n, np.int64), 1).variance[0]) / n)
    if error == 0:
        return Estimate(n, mean, None)
    reach = float(need("scipy.stats", extra="report").t.ppf(1 - alpha / 2, n - 1)) * error
    return Estimate(n, mean, Interval(max(mean - reach, metric.low), min(mean + reach, metric.high)))


def quantile(values: Array, unit: Indices, share: float, alpha: float) -> Quantile:
    """The `share`-quantile, 0 < share < 1, of the requests' `values`; `unit` says whose they are.

    Woodruff's interval (JASA 47, 1952): the share of requests at or below the estimate is a ratio of sums over units, its standard error is
    that of a ratio, and the ends of its interval are turned into quantiles. With fewer than two units there is none.
    """
    if len(values) == 0:
        return Quantile(None, None)
    middle = float(np.quantile(values, share, method="inverted_cdf"))
    _, whose = np.unique(unit, return_inverse=True)
    units = int(whose.max()) + 1
    if units < 2:
        return Quantile(middle, None)
    below = (values <= middle).astype(float)
    off = np.bincount(whose, weights=below - below.mean())
    error = math.sqrt(units / (units - 1) * float((off**2).sum())) / len(values)
    reach = float(need("scipy.stats", extra="report").norm.ppf(1 - alpha / 2)) * error
    ends = np.clip([share - reach, share + reach], 0, 1)
    low, high = (float(end) for end in np.quantile(values, ends, method="inverted_cdf"))
    return Quantile(middle, Interval(min(low, middle), max(high, middle)))
