"""Requests by the unit that was randomised.

An experiment assigns units (users, sessions), so units are its sample: a figure of a unit is the mean over its requests, and every mean,
variance and n of a report is over units. A user with a thousand requests counts once, and requests of one user are never taken for
independent evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.experiments.metrics import Metric
from visa_proxy.store.rows import Measured

ROUNDING: Final = 1e-9
"""A standard deviation below this share of the mean comes from rounding: the values are the same."""
Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """One metric: an element for each request that has it, in the order in which they became known."""

    unit: Indices
    """Number of the unit, 0 … units - 1."""
    value: Array
    at: Array
    """When the value became known, in seconds since 1970, rising."""


@dataclass(frozen=True)
class Moments:
    """Of the means of units, by arm: arrays over arms."""

    n: Array
    """Units that have the metric."""
    mean: Array
    """0 where n is 0."""
    variance: Array
    """Unbiased; 0 where n < 2."""


@dataclass(frozen=True)
class Sample:
    """The requests of one experiment."""

    arms: tuple[str, ...]
    arm_of: Indices
    """(units,): number of the unit's arm."""
    rows: tuple[Measured, ...]
    unit: Indices
    """(rows,): number of the row's unit."""
    crossed: int
    """Units seen in more than one arm. They belong to their first; `left_out` counts their requests in others."""
    left_out: int

    def units(self) -> Indices:
        """(arms,): how many units each arm has."""
        return np.bincount(self.arm_of, minlength=len(self.arms)).astype(np.int64)

    def requests(self) -> Indices:
        """(arms,): how many requests."""
        return np.bincount(self.arm_of[self.unit], minlength=len(self.arms)).astype(np.int64)

    def series(self, metric: Metric) -> Series:
        """The requests that have `metric`."""
        values = [metric.value(row) for row in self.rows]
        known = np.array([value is not None for value in values], bool)
        at = np.array([_known_at(row, metric) for row in self.rows], float)[known]
        value = np.array([value for value in values if value is not None], float)
        order = np.argsort(at, kind="stable")
        return Series(self.unit[known][order], value[order], at[order])

    def by_arm(self, series: Series) -> list[Array]:
        """For each arm, the means of the units that have the metric."""
        means, measured = unit_means(series, len(self.arm_of))
        return [means[measured & (self.arm_of == arm)] for arm in range(len(self.arms))]


def gather(rows: Iterable[Measured], arms: Sequence[str]) -> Sample:
    """The rows of one experiment; those of arms that are not in `arms` must not be among them."""
    number = {arm: i for i, arm in enumerate(arms)}
    units: dict[str, int] = {}
    arm_of: list[int] = []
    kept: list[Measured] = []
    unit: list[int] = []
    strayed: dict[int, int] = {}
    for row in sorted(rows, key=lambda row: row.exposure.at):
        arm = number[row.exposure.arm]
        one = units.setdefault(row.exposure.unit_hash, len(units))
        if one == len(arm_of):
            arm_of.append(arm)
        if arm_of[one] != arm:
            strayed[one] = strayed.get(one, 0) + 1
            continue
        kept.append(row)
        unit.append(one)
    return Sample(
        tuple(arms), np.array(arm_of, np.int64), tuple(kept), np.array(unit, np.int64), len(strayed), sum(strayed.values())
    )


def unit_means(series: Series, units: int) -> tuple[Array, NDArray[np.bool_]]:
    """(units,): the mean of each unit, 0 where it has none, and whether it has one."""
    counts = np.bincount(series.unit, minlength=units)
    sums = np.bincount(series.unit, weights=series.value, minlength=units)
    return sums / np.maximum(counts, 1), counts > 0


def moments(means: Array, arm: Indices, arms: int) -> Moments:
    """Of `means`, one for each unit that has the metric, `arm` saying where it belongs."""
    n = np.bincount(arm, minlength=arms).astype(float)
    mean = np.bincount(arm, weights=means, minlength=arms) / np.maximum(n, 1)
    squares = np.bincount(arm, weights=(means - mean[arm]) ** 2, minlength=arms)
    variance = squares / np.maximum(n - 1, 1)
    return Moments(n, mean, np.where(variance > (ROUNDING * (1 + np.abs(mean))) ** 2, variance, 0.0))


def _known_at(row: Measured, metric: Metric) -> float:
    if metric.rated and row.feedback is not None:
        return max(row.exposure.at, row.feedback.at)
    return row.exposure.at
