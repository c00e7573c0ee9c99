"""The plots of a report, as SVG: the same bytes for the same figures."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any, Final

from visa_proxy.experiments.figures import Report
from visa_proxy.experiments.metrics import METRICS
from visa_proxy.optional import need
from visa_proxy.yaml_problems import visible

PLOTS: Final = {
    "lift": "Difference to the control: always-valid interval (thick) and interval at one look (thin)",
    "days": "Difference to the control with its always-valid interval, at the end of each day",
}
_COLOURS: Final = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # told apart by the colour-blind (Okabe, Ito)


def draw(name: str, report: Report) -> str:
    """The <svg> element of one of PLOTS; "" where there is nothing to draw. Raises MissingExtra without matplotlib."""
    if not _drawable(name, report):
        return ""
    matplotlib, figures = need("matplotlib", extra="report"), need("matplotlib.figure", extra="report")
    # Text stays text: it can be read aloud and found. The salt keeps the ids of two plots on one page apart.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        arms = sum(arm.against_control is not None for arm in report.arms)
        figure = figures.Figure(figsize=(7.5, 1.4 + 0.45 * arms) if name == "lift" else (7.5, 3.6), layout="constrained")
        axes = figure.add_subplot()
        (_lift if name == "lift" else _days)(axes, report)
        metric = METRICS[report.primary]
        unit = {"%": " (share)", "s": " (seconds)", "": ""}[metric.unit]
        label = f"{metric.title}{unit}, difference to {_plain(report.control)}"
        axes.set(**{"xlabel" if name == "lift" else "ylabel": label})
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :].strip()


def _drawable(name: str, report: Report) -> bool:
    if name == "days":
        return any(day.difference is not None for day in report.days)
    found = (arm.against_control[report.primary] for arm in report.arms if arm.against_control is not None)
    return any(one.fixed.interval is not None or one.always.interval is not None for one in found)


def _lift(axes: Any, report: Report) -> None:
    compared = [arm for arm in report.arms if arm.against_control is not None]
    for y, arm in enumerate(compared):
        assert arm.against_control is not None
        found, colour = arm.against_control[report.primary], _COLOURS[y % len(_COLOURS)]
        for interval, width in ((found.always.interval, 5), (found.fixed.interval, 1.5)):
            if interval is not None:
                axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=width, alpha=0.45 if width > 2 else 1)
        if found.difference is not None:
            axes.plot(found.difference, y, "o", color=colour)
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(compared)), labels=[_plain(arm.name) for arm in compared])
    axes.set_ylim(len(compared) - 0.5, -0.5)


def _days(axes: Any, report: Report) -> None:
    names = [arm.name for arm in report.arms if arm.against_control is not None]
    for i, name in enumerate(names):
        points = [day for day in report.days if day.arm == name and day.difference is not None]
        times = [datetime.fromtimestamp(day.at, UTC) for day in points]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(times, [day.difference for day in points], "o-", markersize=3, color=colour, label=_plain(name))
        axes.fill_between(times, [day.low for day in points], [day.high for day in points], color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axes.tick_params(axis="x", rotation=30)
    axes.legend(frameon=False)


def _plain(name: str) -> str:
    """As it is: matplotlib takes what stands between dollar signs for a formula, and XML has no control characters."""
    return visible(name).replace("$", "\\$")
