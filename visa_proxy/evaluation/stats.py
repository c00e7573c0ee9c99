"""Bootstrap over topics: intervals, and paired tests on the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ROUNDS: Final = 2000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """Σ over / Σ under: a mean where `under` is 1 for the rows that count and 0 for the others."""

    over: Array
    """(rows,), 0 for rows that do not count."""
    under: Array
    """(rows,), likewise."""
    rows: NDArray[np.bool_]
    """(rows,): those that count."""

    @classmethod
    def of(cls, over: Array, under: Array, rows: NDArray[np.bool_]) -> Ratio:
        """Whatever rows hold that do not count, NaN too, is not looked at."""
        return cls(np.where(rows, over, 0.0), np.where(rows, under, 0.0), rows)

    @classmethod
    def mean(cls, values: Array, rows: NDArray[np.bool_]) -> Ratio:
        """Of the values of `rows`."""
        return cls.of(values, np.ones_like(values), rows)

    def within(self, rows: NDArray[np.bool_]) -> Ratio:
        """The same of those that are among `rows` too."""
        return Ratio.of(self.over, self.under, self.rows & rows)

    @property
    def value(self) -> float:
        """NaN unless Σ under is above 0."""
        return float(_divided(self.over.sum(), self.under.sum()))


def _divided(over: Array, under: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 1e-9, over / under, np.nan)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """Ours less theirs."""

    p: float
    """Two-sided: twice the share of draws on the lesser side of 0, at most 1; no less than the number of draws can tell."""


class Bootstrap:
    """Whole topics are drawn with replacement: answers of one topic do not count twice. Everybody gets the same draws."""

    def __init__(self, topics: Sequence[str], seed: int = 0, rounds: int = ROUNDS) -> None:
        names, self._group = np.unique(np.array(topics), return_inverse=True)
        drawn = np.random.default_rng(seed).integers(0, len(names), (rounds, len(names)))
        self._counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn]).astype(np.float64)

    def estimate(self, ratio: Ratio) -> Estimate:
        return Estimate(ratio.value, *_interval(self._draws(ratio)))

    def difference(self, ours: Ratio, theirs: Ratio) -> Difference:
        """Over the rows that count for both."""
        both = ours.rows & theirs.rows
        ours, theirs = ours.within(both), theirs.within(both)
        draws = self._draws(ours) - self._draws(theirs)
        draws = draws[np.isfinite(draws)]
        value = ours.value - theirs.value
        if not len(draws) or not np.isfinite(value):
            return Difference(float("nan"), float("nan"), float("nan"), float("nan"))
        # The figure itself counts as a draw, so that no p is 0.
        side = min((draws <= 0).sum(), (draws >= 0).sum())
        return Difference(value, *_interval(draws), p=float(min(1.0, 2 * (side + 1) / (len(draws) + 1))))

    def _draws(self, ratio: Ratio) -> Array:
        """(rounds,)"""
        over, under = (np.bincount(self._group, part, self._counts.shape[1]) for part in (ratio.over, ratio.under))
        return _divided(self._counts @ over, self._counts @ under)


def _interval(draws: Array) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
