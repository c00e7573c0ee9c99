"""The figures of a report, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visa_proxy.experiments.balance import Balance
from visa_proxy.experiments.comparison import Comparison
from visa_proxy.experiments.estimates import Estimate, Quantile


@dataclass(frozen=True)
class Arm:
    """One arm."""

    name: str
    units: int
    requests: int
    metrics: Mapping[str, Estimate]
    """By name of the metric: mean over units."""
    latency_median: Quantile
    """Seconds, over requests."""
    latency_p95: Quantile
    against_control: Mapping[str, Comparison] | None
    """By name of the metric. None for the control, and for a holdout: it is shown, and compared only when it is the control."""


@dataclass(frozen=True)
class Point:
    """An arm at the end of a day, on the primary metric."""

    at: float
    """Seconds since 1970."""
    arm: str
    units: int
    difference: float | None
    """To the control; None while there is too little to say."""
    low: float | None
    """The always-valid interval."""
    high: float | None


@dataclass(frozen=True)
class Report:
    """One experiment of one tenant."""

    tenant: str
    experiment: str
    control: str
    primary: str
    """The metric that the verdict is about. The others are not corrected for their number: read them as hints."""
    alpha: float
    """Chance of a false alarm over all arms together, on any one metric."""
    comparisons: int
    """Arms that are compared with the control; alpha is shared among them (Bonferroni)."""
    effect: float | None
    """The effect whose needed size was asked for."""
    first: float | None
    """Seconds since 1970: the first and the last request."""
    last: float | None
    units: int
    requests: int
    crossed: int
    """Units that were seen in more than one arm."""
    left_out: int
    """Their requests outside of their first arm, in no figure."""
    arms: tuple[Arm, ...]
    """The control first."""
    balance: Balance
    days: tuple[Point, ...]
    """The always-valid interval of each arm at the end of each day."""
    verdicts: tuple[str, ...] = ()
    """What the primary metric says, a sentence for each comparison."""
    cautions: tuple[str, ...] = ()
    """What to know before believing it."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers are finite, what is not known is null."""
        return dataclasses.asdict(self)
