"""Statistics of the reports: cosine, correlation, and bootstrap intervals over clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ROUNDS: Final = 1000


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """In [-1, 1]; 0 when either vector is zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Correlation in [-1, 1]; NaN when one of them does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def auroc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Chance that a row with the label scores above one without; ties count half. NaN when there is none of either."""
    high, low = scores[labels], np.sort(scores[~labels])
    if not len(high) or not len(low):
        return float("nan")
    below, upto = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
    return float((below + upto).mean() / 2 / len(low))


def interval(
    measure: Callable[[NDArray[np.intp]], float], clusters: Sequence[object], rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float, float]:
    """`measure` of all rows, and its 95 % percentile bootstrap interval.

    `measure` takes row numbers, with repetitions. Whole clusters are resampled: rows that share a phrase, a topic or a query do
    not count twice.
    """
    members: dict[object, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    groups = [np.array(rows) for rows in members.values()]
    draws = np.random.default_rng(seed).integers(0, len(groups), (rounds, len(groups)))
    found = [measure(np.concatenate([groups[i] for i in draw])) for draw in draws]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return measure(np.arange(len(clusters))), float(low), float(high)


def mean_interval(values: NDArray[np.floating], clusters: Sequence[object]) -> tuple[float, float, float]:
    """The mean of `values`, and its interval."""
    return interval(lambda i: float(values[i].mean()), clusters)
