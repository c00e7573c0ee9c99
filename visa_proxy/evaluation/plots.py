"""The plots: consistency against value cosine, deviation by value, joint success by system and by size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visa_proxy.evaluation import metrics
from visa_proxy.evaluation.cases import space
from visa_proxy.evaluation.specs import sized
from visa_proxy.evaluation.stats import Bootstrap
from visa_proxy.optional import need

if TYPE_CHECKING:
    from visa_proxy.evaluation.report import Result


def draw(folder: Path, found: Sequence[Result], bootstrap: Bootstrap) -> list[str]:
    """Writes the plots, the same bytes for the same figures, and gives the names of their files. Raises MissingExtra without matplotlib."""
    plots = {"pareto.svg": pareto, "deviations.svg": _deviations, "success.svg": _success}
    if sum(sized(each.name) is not None for each in found) > 1:
        plots["sizes.svg"] = _sizes
    for name, plot in plots.items():
        save(folder / name, lambda figure, plot=plot: plot(figure.add_subplot(), found, bootstrap))  # type: ignore[misc]
    return list(plots)


def save(file: Path, paint: Callable[[Any], None], size: tuple[float, float] = (7, 4.2)) -> None:
    """What `paint` draws on a figure of `size` inches, as SVG: the same bytes for the same drawing, in place when it is whole.

    Raises MissingExtra without matplotlib.
    """
    matplotlib, figures = need("matplotlib", extra="eval"), need("matplotlib.figure", extra="eval")
    with matplotlib.rc_context({"svg.hashsalt": "visa-proxy", "font.size": 9}):
        figure = figures.Figure(figsize=size, layout="constrained")
        paint(figure)
        part = file.with_name(f"{file.name}.part")
        figure.savefig(part, format="svg", metadata={"Date": None})
        part.replace(file)


def _bars(found: Sequence[Result], figure: str, bootstrap: Bootstrap) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Values, (systems,), and how far their intervals reach below and above, (2, systems); NaN becomes 0."""
    estimates = [bootstrap.estimate(each.figures[figure]) for each in found]
    values = np.array([e.value for e in estimates])
    reach = np.array([[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]])
    return np.nan_to_num(values), np.clip(np.nan_to_num(reach), 0, None)


def on_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """The points that no other is at least as good as in both, and better in one; by x."""
    points = list(zip(x, y, strict=True))
    front = [i for i, (a, b) in enumerate(points) if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in points)]
    return sorted(front, key=lambda i: points[i])


def pareto(axes: Any, found: Sequence[Result], bootstrap: Bootstrap) -> None:
    """Consistency against value cosine, with the front."""
    x, across = _bars(found, "cosine", bootstrap)
    y, along = _bars(found, "consistency", bootstrap)
    front = on_front(list(x), list(y))
    axes.plot(x[front], y[front], color="0.7", linestyle="--", linewidth=1, zorder=0)
    for i, each in enumerate(found):
        axes.errorbar(x[i], y[i], xerr=across[:, i : i + 1], yerr=along[:, i : i + 1], fmt="o", capsize=2, label=each.name)
    axes.set(xlabel="value cosine", ylabel="consistency", title="Consistency against values (dashed: Pareto front)")
    axes.legend(frameon=False)


def _deviations(axes: Any, found: Sequence[Result], bootstrap: Bootstrap) -> None:
    names = space().names
    width = 0.8 / len(found)
    for i, each in enumerate(found):
        places = np.arange(len(names)) - 0.4 + (i + 0.5) * width
        axes.bar(places, np.nan_to_num(metrics.deviations(each.measured)), width, label=each.name)
    axes.set_xticks(range(len(names)), labels=names, rotation=35, ha="right")
    axes.set(ylabel="mean |v' − v*|", title="Deviation from the target by value")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(frameon=False, ncols=4)


def _success(axes: Any, found: Sequence[Result], bootstrap: Bootstrap) -> None:
    values, reach = _bars(found, "success", bootstrap)
    axes.bar([each.name for each in found], values, yerr=reach, capsize=3, color="#74a9cf")
    axes.tick_params(axis="x", rotation=20)
    axes.set(ylim=(0, 1), ylabel="joint success rate", title="Joint success rate")


def _sizes(axes: Any, found: Sequence[Result], bootstrap: Bootstrap) -> None:
    """Joint success by size, a line for each method (paper, fig. 6c); systems without a size are not in it."""
    lines: dict[str, list[tuple[float, int]]] = {}
    for place, each in enumerate(found):
        if (named := sized(each.name)) is not None:
            lines.setdefault(named[0], []).append((named[1], place))
    values, reach = _bars(found, "success", bootstrap)
    for method, points in lines.items():
        sizes, places = zip(*sorted(points), strict=True)
        chosen = list(places)
        axes.errorbar(sizes, values[chosen], yerr=reach[:, chosen], marker="o", capsize=3, label=method)
    axes.set(xscale="log", ylim=(0, 1), xlabel="parameters", ylabel="joint success rate", title="Joint success rate by size")
    axes.legend(frameon=False)
