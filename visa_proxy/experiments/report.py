"""What an experiment has shown so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from visa_proxy.errors import RequestError
from visa_proxy.experiments.balance import Balance, balance
from visa_proxy.experiments.comparison import Comparison, compare, possible
from visa_proxy.experiments.estimates import estimate, quantile
from visa_proxy.experiments.figures import Arm, Point, Report
from visa_proxy.experiments.looks import Look, day_ends, looks
from visa_proxy.experiments.metrics import METRICS, Metric, metric_named
from visa_proxy.experiments.reading import cautions, verdicts
from visa_proxy.experiments.units import Sample, Series, gather
from visa_proxy.policy.assign import HOLDOUT
from visa_proxy.store.rows import Measured


def analyse(
    rows: Iterable[Measured],
    *,
    tenant: str = "",
    experiment: str = "",
    weights: Mapping[str, float] | None = None,
    control: str | None = None,
    metric: str | None = None,
    alpha: float = 0.05,
    effect: float | None = None,
) -> Report:
    """The report of one experiment from its exposures, in any order.

    `tenant` and `experiment`, where given, choose among the rows. `weights`: arm to share as the policy has it, with the holdout; without
    them equal weights are assumed. `control`: default the first of `weights`, else the first by name. `metric`: the primary one, default
    feedback where there is any, else thumbs, else similarity. `alpha` in (0, 0.5). `effect` > 0: a difference to be found, in units of
    the primary metric. Raises RequestError for an arm or a metric that there is not, and for numbers out of range.
    """
    chosen = [row for row in rows if _belongs(row, tenant, experiment)]
    if not 0 < alpha < 0.5:
        raise RequestError(f"alpha: found {alpha:g}, allowed: more than 0 and less than 0.5", param="alpha")
    if effect is not None and not 0 < effect < math.inf:
        raise RequestError(f"effect: found {effect:g}, allowed: more than 0", param="effect")
    arms = _arms(chosen, weights or {}, control)
    sample = gather(chosen, arms)
    series = {name: sample.series(one) for name, one in METRICS.items()}
    primary = metric_named(metric) if metric is not None else _primary(series)
    compared = [arm for arm in arms[1:] if arm != HOLDOUT]
    times = [row.exposure.at for row in sample.rows]
    report = Report(
        tenant=tenant,
        experiment=experiment,
        control=arms[0] if arms else "",
        primary=primary.name,
        alpha=alpha,
        comparisons=len(compared),
        effect=effect,
        first=min(times, default=None),
        last=max(times, default=None),
        units=len(sample.arm_of),
        requests=len(sample.rows),
        crossed=sample.crossed,
        left_out=sample.left_out,
        arms=_figures(sample, series, compared, primary, alpha, effect),
        balance=_balance(sample, weights),
        days=_days(sample, series[primary.name], primary, compared, alpha),
    )
    return dataclasses.replace(report, verdicts=verdicts(report), cautions=cautions(report))


def _belongs(row: Measured, tenant: str, experiment: str) -> bool:
    exposure = row.exposure
    known = bool(exposure.experiment and exposure.arm and exposure.unit_hash)
    return known and tenant in ("", exposure.tenant) and experiment in ("", exposure.experiment)


def _arms(rows: Sequence[Measured], weights: Mapping[str, float], control: str | None) -> list[str]:
    """The control first, then as the policy has them, then those the policy no longer has; a holdout last."""
    seen = sorted({row.exposure.arm for row in rows})
    arms = list(weights) + [arm for arm in seen if arm not in weights]
    arms.sort(key=lambda arm: arm == HOLDOUT)
    if control is not None:
        if control not in arms:
            raise RequestError(f"there is no arm {control!r}; allowed: {', '.join(arms) or 'none'}", param="control")
        arms.sort(key=lambda arm: arm != control)
    return arms


def _primary(series: Mapping[str, Series]) -> Metric:
    return METRICS[next((name for name in ("feedback", "thumbs") if len(series[name].value)), "similarity")]


def _figures(
    sample: Sample, series: Mapping[str, Series], compared: list[str], primary: Metric, alpha: float, effect: float | None
) -> tuple[Arm, ...]:
    units, requests = sample.units(), sample.requests()
    values = {name: sample.by_arm(one) for name, one in series.items()}
    seconds = series["latency"]
    arms: list[Arm] = []

    def against(arm: int) -> dict[str, Comparison]:
        return {
            name: compare(
                values[name][arm],
                values[name][0],
                metric,
                alpha=alpha,
                comparisons=len(compared),
                effect=effect if metric is primary else None,
            )
            for name, metric in METRICS.items()
        }

    for i, name in enumerate(sample.arms):
        here = sample.arm_of[seconds.unit] == i
        median, tail = (quantile(seconds.value[here], seconds.unit[here], share, alpha) for share in (0.5, 0.95))
        estimates = {metric.name: estimate(values[metric.name][i], metric, alpha) for metric in METRICS.values()}
        arms.append(Arm(name, int(units[i]), int(requests[i]), estimates, median, tail, against(i) if name in compared else None))
    return tuple(arms)


def _balance(sample: Sample, weights: Mapping[str, float] | None) -> Balance:
    units = dict(zip(sample.arms, map(int, sample.units()), strict=True))
    equal = {arm: 1.0 for arm in sample.arms if arm != HOLDOUT}
    return balance(units, weights or equal, assumed=not weights)


def _days(sample: Sample, series: Series, metric: Metric, compared: list[str], alpha: float) -> tuple[Point, ...]:
    if not len(series.at) or not compared:
        return ()
    level = alpha / len(compared)
    ends = day_ends(float(series.at[0]), float(series.at[-1]))
    days = looks(series, sample.arm_of, len(sample.arms), control=0, rate=metric.kind == "rate", alpha=level, ends=ends)
    return tuple(_point(day, sample.arms, arm, metric) for day in days for arm in compared)


def _point(day: Look, arms: Sequence[str], arm: str, metric: Metric) -> Point:
    i = arms.index(arm)
    difference, radius = float(day.difference[i]), float(day.radius[i])
    if math.isnan(difference):
        return Point(day.at, arm, int(day.units[i]), None, None, None)
    found = possible(difference, radius, metric)
    return Point(day.at, arm, int(day.units[i]), difference, found.low, found.high)
