"""A report as sections of text and tables, whatever it is then written in."""

from __future__ import annotations

from dataclasses import dataclass, field

from visa_proxy.experiments.figures import Arm, Report
from visa_proxy.experiments.metrics import METRICS, Metric
from visa_proxy.experiments.sequential import PLANNED, START
from visa_proxy.experiments.wording import chance, count, interval, number, percent, percents, seconds, size, time, with_interval


@dataclass(frozen=True)
class Table:
    """Cells are plain text; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    plots: tuple[str, ...] = field(default=())
    """Names of `plots.PLOTS`."""


def sections(report: Report) -> list[Section]:
    """The whole page, its title first."""
    metric = METRICS[report.primary]
    parts = [
        Section(
            f"Experiment {report.experiment or '?'}" + (f" of {report.tenant}" if report.tenant else ""),
            (
                f"{_extent(report)} Primary metric: {metric.title} ({metric.meaning}).",
                *report.verdicts,
            ),
        )
    ]
    if report.cautions:
        parts.append(Section("Cautions", report.cautions))
    parts.append(_lift(report, metric))
    parts += [_arms(report), _figures(report)]
    if any(arm.against_control is not None for arm in report.arms):
        parts.append(_others(report, metric))
    return [*parts, _method(report)]


def _extent(report: Report) -> str:
    if not report.requests:
        return "No requests yet."
    return f"{count(report.requests)} requests of {count(report.units)} units, {time(report.first)} – {time(report.last)}."


def _lift(report: Report, metric: Metric) -> Section:
    level = f"{(1 - report.alpha) * 100:g} %"
    header = [
        "arm",
        "lift",
        f"always valid, {level}",
        "p at any look",
        "relative",
        f"one look, {level}",
        "p at one look",
        "80 % power finds",
    ]
    header += ["units needed"] * (report.effect is not None)
    rows: list[tuple[str, ...]] = []
    for arm in report.arms:
        if arm.against_control is None:
            continue
        found = arm.against_control[metric.name]
        cells = [
            arm.name,
            number(found.difference, metric, signed=True),
            interval(found.always.interval, metric, signed=True),
            chance(found.always.p),
            f"{percent(found.relative)} ({percents(found.always.relative)})" if found.relative is not None else "–",
            interval(found.fixed.interval, metric, signed=True),
            chance(found.fixed.p) + (f" ({found.method})" if found.method else ""),
            f"{size(found.always.detectable, metric)} (one look: {size(found.fixed.detectable, metric)})",
        ]
        cells += [f"{count(found.always.needed)} (one look: {count(found.fixed.needed)})"] * (report.effect is not None)
        rows.append(tuple(cells))
    if not rows:
        return Section(metric.title.capitalize(), ("There is no other arm to compare.",))
    return Section(
        f"{metric.title.capitalize()} against {report.control}", table=Table(tuple(header), tuple(rows)), plots=("lift", "days")
    )


def _arms(report: Report) -> Section:
    total = sum(arm.units for arm in report.arms if arm.name in report.balance.expected)
    rows = [
        (arm.name, count(arm.units), count(arm.requests), _share(arm, report, total), _expected(arm, report))
        for arm in report.arms
    ]
    test = f"Sample ratio: p {chance(report.balance.always_p)} at any look, {chance(report.balance.p)} at one look (chi-square)."
    return Section("Units", (test,), Table(("arm", "units", "requests", "share", "weight"), tuple(rows)))


def _share(arm: Arm, report: Report, total: int) -> str:
    return f"{arm.units / total * 100:.1f} %" if arm.name in report.balance.expected and total else "–"


def _expected(arm: Arm, report: Report) -> str:
    share = report.balance.expected.get(arm.name)
    return "–" if share is None else f"{share * 100:.1f} %"


def _figures(report: Report) -> Section:
    rows = [
        (
            metric.title,
            *(with_interval(arm.metrics[name].mean, arm.metrics[name].interval, metric) for arm in report.arms),
        )
        for name, metric in METRICS.items()
    ]
    rows.append(("median latency", *(seconds(arm.latency_median) for arm in report.arms)))
    rows.append(("95th percentile of latency", *(seconds(arm.latency_p95) for arm in report.arms)))
    return Section(
        "Figures",
        (f"Means over units, latency quantiles over requests; {(1 - report.alpha) * 100:g} % intervals at one look.",),
        Table(("metric", *(arm.name for arm in report.arms)), tuple(rows)),
    )


def _others(report: Report, primary: Metric) -> Section:
    rows = [
        (
            metric.title,
            arm.name,
            number(arm.against_control[name].difference, metric, signed=True),
            interval(arm.against_control[name].always.interval, metric, signed=True),
            chance(arm.against_control[name].always.p),
            chance(arm.against_control[name].fixed.p),
            size(arm.against_control[name].always.detectable, metric),
        )
        for name, metric in METRICS.items()
        if metric is not primary
        for arm in report.arms
        if arm.against_control is not None and arm.against_control[name].difference is not None
    ]
    header = ("metric", "arm", "lift", "always valid", "p at any look", "p at one look", "80 % power finds")
    text = f"Against {report.control}. Not corrected for the number of metrics: hints, not findings."
    return Section("Other metrics", (text,), Table(header, tuple(rows)))


def _method(report: Report) -> Section:
    shared = (
        f" The {report.comparisons} comparisons share the {report.alpha:g} of false alarms (Bonferroni), in intervals and p-values alike."
        if report.comparisons > 1
        else ""
    )
    return Section(
        "How this was computed",
        (
            "Units were randomised, so a unit's figure is the mean over its requests, and means, intervals and tests are over units.",
            "Always valid: asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2021, Theorem 2.2), narrowest at "
            f"{count(PLANNED)} units, from {START} units in both arms on. They hold at every look, so the report may be read daily and the "
            f"experiment ended at any time.{shared}",
            "At one look: Welch's t test, or the two-proportion z test where every unit is 0 or 1. These hold for one look at a size fixed "
            "in advance: who looks daily and stops at the first p below 0.05 is wrong far more often than in 5 % of cases.",
            "Sample ratio: the sequential multinomial test of Lindon and Malek (2022); alarm at p ≤ 0.01. "
            "80 % power: the smallest difference that the test finds in four of five experiments of this size.",
        ),
    )
