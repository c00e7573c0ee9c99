"""What one tenant's answers have been like: from the store, or, without one, from the counters of /metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from visa_proxy.store.rows import Exposure

DAYS: Final = 7
MOST: Final = 5000
"""Answers that are looked at, the newest."""

Vector = Mapping[str, float]


@dataclass(frozen=True)
class Latency:
    """Seconds of whole requests."""

    median: float
    p95: float


@dataclass(frozen=True)
class Overview:
    """Figures over some answers; what none of them tells is None or empty."""

    answers: int = 0
    statuses: Sequence[tuple[str, int]] = ()
    """The most frequent first."""
    latency: Latency | None = None
    consistency: float | None = None
    """Mean over adapted answers, 0 … 1."""
    similarity: tuple[float, float] | None = None
    """Cosine with the target before and after, means over adapted answers."""
    adapted: int = 0
    """Adapted answers whose values were measured."""
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """before, target and after: means over those."""


def of_exposures(exposures: Iterable[Exposure]) -> Overview:
    """Of the store's rows of one tenant."""
    rows = list(exposures)
    if not rows:
        return Overview()
    adapted = [row for row in rows if row.status == "adapted"]
    median, p95 = np.quantile([row.latency_s for row in rows], [0.5, 0.95])
    before = [row.similarity_before for row in adapted if row.similarity_before is not None]
    after = [row.similarity_after for row in adapted if row.similarity_after is not None]
    return Overview(
        answers=len(rows),
        statuses=Counter(row.status for row in rows).most_common(),
        latency=Latency(float(median), float(p95)),
        consistency=_mean([row.consistency for row in adapted if row.consistency is not None]),
        similarity=(float(np.mean(before)), float(np.mean(after))) if before and after else None,
        adapted=sum(_measured(row) for row in adapted),
        vectors=_mean_vectors(adapted),
    )


def of_counters(rendered: str, tenant: str) -> Overview:
    """Of the text of /metrics: all that is known of a tenant's answers without a store."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(rendered):
        if family.name != "visa_answers":
            continue
        for sample in family.samples:
            if sample.name == "visa_answers_total" and sample.labels["tenant"] == tenant:
                counts[sample.labels["status"]] += int(sample.value)
    return Overview(answers=counts.total(), statuses=counts.most_common())


def _mean(figures: list[float]) -> float | None:
    return float(np.mean(figures)) if figures else None


def _measured(row: Exposure) -> bool:
    return row.before is not None and row.target is not None and row.after is not None


def _mean_vectors(adapted: Sequence[Exposure]) -> dict[str, Vector]:
    rows = [row for row in adapted if _measured(row)]
    if not rows:
        return {}
    return {
        "before": _mean_vector([row.before or {} for row in rows]),
        "target": _mean_vector([row.target or {} for row in rows]),
        "after": _mean_vector([row.after or {} for row in rows]),
    }


def _mean_vector(vectors: Sequence[Vector]) -> Vector:
    """Over those that have the dimension."""
    names = dict.fromkeys(name for vector in vectors for name in vector)
    return {name: round(float(np.mean([vector[name] for vector in vectors if name in vector])), 4) for name in names}
