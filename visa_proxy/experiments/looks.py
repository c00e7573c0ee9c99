"""The experiment as it stood at the end of each day: what somebody who looked every day has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from visa_proxy.experiments.sequential import START, boundary, squared_errors
from visa_proxy.experiments.units import Array, Indices, Series, moments

DAY: Final = 86_400.0
MAX_LOOKS: Final = 60
"""A longer experiment is looked at every second, third … day."""


@dataclass(frozen=True)
class Look:
    """Differences to the control, an element for each arm; NaN where nothing can be said yet, and for the control itself."""

    at: float
    """Seconds since 1970."""
    units: Array
    """(arms,): units that have the metric by then."""
    difference: Array
    radius: Array
    """Half the width of the always-valid interval."""

    def alarms(self) -> bool:
        """Whether the interval of any arm leaves out zero."""
        return bool(np.any(np.abs(self.difference) > self.radius))


def day_ends(first: float, last: float) -> list[float]:
    """Midnights (UTC) after `first`, at most MAX_LOOKS, the last one being the first at or after `last`."""
    start, end = math.floor(first / DAY), max(math.ceil(last / DAY), math.floor(first / DAY) + 1)
    step = math.ceil((end - start) / MAX_LOOKS)
    return [day * DAY for day in range(end, start, -step)][::-1]


def looks(series: Series, arm_of: Indices, arms: int, *, control: int, rate: bool, alpha: float, ends: list[float]) -> list[Look]:
    """The always-valid intervals at the times `ends`, rising, at level 1 - `alpha` each."""
    sums, counts = np.zeros(len(arm_of)), np.zeros(len(arm_of))
    found: list[Look] = []
    done = 0
    for end in ends:
        upto = int(np.searchsorted(series.at, end, side="right"))
        units, values = series.unit[done:upto], series.value[done:upto]
        sums += np.bincount(units, weights=values, minlength=len(sums))
        counts += np.bincount(units, minlength=len(counts))
        done = upto
        known = counts > 0
        found.append(_look(end, sums[known] / counts[known], arm_of[known], arms, control, rate, alpha))
    return found


def _look(at: float, means: Array, arm: Indices, arms: int, control: int, rate: bool, alpha: float) -> Look:
    here = moments(means, arm, arms)
    squared, beside = squared_errors(here, control, rate=rate)
    said = (here.n >= START) & (here.n[control] >= START)
    said[control] = False
    total = np.where(said, squared + beside, 1.0)
    said &= total > 0
    radius = boundary(np.maximum(here.n + here.n[control], 1), alpha) * np.sqrt(total)
    return Look(at, here.n, np.where(said, here.mean - here.mean[control], np.nan), np.where(said, radius, np.nan))
