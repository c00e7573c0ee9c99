"""Experiments as the page shows them: what the policies say of them, and what the store's rows have shown so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.experiments.estimates import Interval
from visa_proxy.experiments.metrics import METRICS, Metric
from visa_proxy.experiments.reading import cautions, verdicts
from visa_proxy.experiments.report import analyse
from visa_proxy.experiments.wording import interval, number, with_interval
from visa_proxy.policy.summary import Summary
from visa_proxy.store.rows import Measured

MOST: Final = 100_000
"""Requests of one experiment that are looked at."""
_SHOWN: Final = ("feedback", "thumbs", "similarity", "gain", "adapted", "fallback", "consistency", "latency")
_MARGIN: Final = 5.0
"""Percent of the picture on either side."""


@dataclass(frozen=True)
class Picture:
    """An always-valid interval on the common scale of an experiment, in percent of the width, 0 … 100."""

    low: float
    high: float
    point: float
    zero: float
    text: str


@dataclass(frozen=True)
class ArmView:
    """One arm, in words."""

    name: str
    planned: str
    """Its share by the policy."""
    units: int
    requests: int
    figures: Sequence[str]
    """One for each column."""
    difference: Picture | None
    """To the control, on the primary metric; None while there is too little to say."""


@dataclass(frozen=True)
class Trial:
    """One experiment."""

    tenant: str
    name: str
    summary: Summary | None
    """What the policy says; None for one that is in the store only."""
    control: str
    primary: str
    columns: Sequence[str]
    verdicts: Sequence[str]
    cautions: Sequence[str]
    units: int
    requests: int
    arms: Sequence[ArmView]
    cut: bool
    """There are more requests than were looked at."""


def trial(tenant: str, name: str, summary: Summary | None, rows: Sequence[Measured]) -> Trial:
    """Raises MissingExtra without the libraries that statistics need."""
    weights = None if summary is None else {arm["name"]: float(arm["share"]) for arm in summary["arms"]}
    report = analyse(rows, tenant=tenant, experiment=name, weights=weights)
    primary = METRICS[report.primary]
    known = [METRICS[metric] for metric in _SHOWN if any(arm.metrics[metric].mean is not None for arm in report.arms)]
    found: dict[str, tuple[Interval, float]] = {}
    for arm in report.arms:
        comparison = None if arm.against_control is None else arm.against_control[primary.name]
        if comparison is not None and comparison.always.interval is not None and comparison.difference is not None:
            found[arm.name] = comparison.always.interval, comparison.difference
    pictures = _pictures(found, primary)
    return Trial(
        tenant=tenant,
        name=name,
        summary=summary,
        control=report.control,
        primary=primary.title,
        columns=[metric.title for metric in known],
        verdicts=verdicts(report),
        cautions=cautions(report),
        units=report.units,
        requests=report.requests,
        arms=[
            ArmView(
                name=arm.name,
                planned=f"{100 * weights[arm.name]:.1f} %" if weights and arm.name in weights else "–",
                units=arm.units,
                requests=arm.requests,
                figures=[_figure(arm.metrics[metric.name], metric) for metric in known],
                difference=pictures.get(arm.name),
            )
            for arm in report.arms
        ],
        cut=len(rows) >= MOST,
    )


def _figure(estimate: Any, metric: Metric) -> str:
    return with_interval(estimate.mean, estimate.interval, metric)


def _pictures(found: dict[str, tuple[Interval, float]], metric: Metric) -> dict[str, Picture]:
    """On one scale that has zero and all intervals on it."""
    ends = [0.0, *(end for each, _ in found.values() for end in (each.low, each.high) if math.isfinite(end))]
    least, greatest = min(ends), max(ends)
    width = greatest - least or 1.0

    def at(value: float) -> float:
        return round(_MARGIN + (100 - 2 * _MARGIN) * (min(max(value, least), greatest) - least) / width, 2)

    return {
        arm: Picture(
            at(each.low),
            at(each.high),
            at(difference),
            at(0.0),
            f"{number(difference, metric, signed=True)} ({interval(each, metric, signed=True)})",
        )
        for arm, (each, difference) in found.items()
    }
