"""What is measured of each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from visa_proxy.errors import RequestError
from visa_proxy.store.rows import Measured


@dataclass(frozen=True)
class Metric:
    """One figure of one answer, or none where the answer has none."""

    name: str
    title: str
    meaning: str
    value: Callable[[Measured], float | None]
    kind: Literal["rate", "mean"]
    """rate: each answer is 0 or 1."""
    unit: Literal["%", "s", ""]
    low: float
    """The least that it can be."""
    high: float
    """The most that it can be; infinite for seconds."""
    higher_is_better: bool = True
    proportional: bool = False
    """Its zero means none at all, so that "10 % more" means something."""
    rated: bool = False
    """Known when the feedback comes, not when the answer leaves."""


def metric_named(name: str) -> Metric:
    """Raises RequestError with what there is."""
    if name not in METRICS:
        raise RequestError(f"there is no metric {name!r}; allowed: {', '.join(METRICS)}", param="metric")
    return METRICS[name]


def _score(row: Measured) -> float | None:
    return row.feedback.score if row.feedback is not None else None


def _thumbs(row: Measured) -> float | None:
    if row.feedback is None or row.feedback.thumbs is None:
        return None
    return float(row.feedback.thumbs == "up")


def _delivered(row: Measured) -> float | None:
    """Of what the client got: a rewrite that was refused counts as the base's answer, else only successes would be looked at."""
    exposure = row.exposure
    return exposure.similarity_after if exposure.similarity_after is not None else exposure.similarity_before


def _gain(row: Measured) -> float | None:
    after, before = _delivered(row), row.exposure.similarity_before
    return after - before if after is not None and before is not None else None


def _consistency(row: Measured) -> float | None:
    """Of rewrites that left: an exposure also holds the figure of one that was refused."""
    return row.exposure.consistency if row.exposure.status == "adapted" else None


_ALL: Final = (
    Metric("feedback", "score", "score of the feedback, -1 … 1", _score, "mean", "", -1, 1, rated=True),
    Metric("thumbs", "thumbs up", "share of thumbs that are up", _thumbs, "rate", "%", 0, 1, proportional=True, rated=True),
    Metric(
        "response",
        "feedback given",
        "share of answers with any feedback",
        lambda row: float(row.feedback is not None),
        "rate",
        "%",
        0,
        1,
        proportional=True,
    ),
    Metric("similarity", "similarity", "cosine of what the client got with the target, -1 … 1", _delivered, "mean", "", -1, 1),
    Metric("gain", "similarity gain", "how much closer to the target than the base's answer, -2 … 2", _gain, "mean", "", -2, 2),
    Metric(
        "adapted",
        "adapted",
        "share of answers that were rewritten",
        lambda row: float(row.exposure.status == "adapted"),
        "rate",
        "%",
        0,
        1,
        proportional=True,
    ),
    Metric(
        "fallback",
        "fallback",
        "share of answers left as they were because rewriting failed",
        lambda row: float(row.exposure.status.startswith("fallback")),
        "rate",
        "%",
        0,
        1,
        higher_is_better=False,
        proportional=True,
    ),
    Metric("consistency", "consistency", "entailment of the rewrites, 0 … 1", _consistency, "mean", "", 0, 1, proportional=True),
    Metric(
        "latency",
        "mean latency",
        "seconds of the whole request",
        lambda row: row.exposure.latency_s,
        "mean",
        "s",
        0,
        float("inf"),
        higher_is_better=False,
        proportional=True,
    ),
)

METRICS: Final = {metric.name: metric for metric in _ALL}
"""In the order of a report."""
