"""Rows of experiments, made up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from visa_proxy.experiments.looks import Look, looks
from visa_proxy.experiments.sequential import START as SAID
from visa_proxy.experiments.units import Array, Indices, Series, moments, unit_means
from visa_proxy.store.address import Address
from visa_proxy.store.database import Database
from visa_proxy.store.rows import Exposure, Feedback, Measured

DAY = 86_400.0
START = 20_454 * DAY
"""2026-01-01, midnight UTC."""


def row(
    unit: int, arm: str, *, score: float | None = None, thumbs: Any = None, day: float = 0.5, later: float = 60.0, **fields: Any
) -> Measured:
    """An exposure of `unit`, with feedback when there is any, given `later` seconds after it."""
    at = START + day * DAY
    known: dict[str, Any] = {"profile": arm, "status": "adapted", "latency_s": 1.0, "experiment": "voice", "tenant": "acme"}
    known |= {"request_id": f"r-{unit}-{day}", "unit_hash": f"{unit:016x}"}
    exposure = Exposure(at=at, arm=arm, **(known | fields))
    feedback = Feedback(exposure.tenant, exposure.request_id, at + later, score=score, thumbs=thumbs)
    return Measured(exposure, feedback if score is not None or thumbs is not None else None)


def scored(scores: Mapping[str, Iterable[float]], **fields: Any) -> list[Measured]:
    """One unit with one request for every score, by arm; arms take turns in time."""
    units = [(place, arm, float(score)) for arm, found in scores.items() for place, score in enumerate(found)]
    ordered = sorted(units, key=lambda each: each[0])
    return [row(unit, arm, score=score, day=0.001 * unit, **fields) for unit, (_, arm, score) in enumerate(ordered)]


def keep(url: str, rows: Iterable[Measured]) -> str:
    """Writes them into the store, as the proxy does."""
    listed = list(rows)
    database = Database(Address.parse(url))
    database.write([each.exposure for each in listed], {})
    database.feedback([each.feedback for each in listed if each.feedback is not None], {})
    database.close()
    return url


def daily(
    values: Array, day: Array, arm: Indices, *, unit: Indices | None = None, rate: bool = False, days: int = 30
) -> list[Look]:
    """Looks at the end of every day at an experiment whose requests have `values` on `day`; `arm` is that of each unit."""
    order = np.argsort(day, kind="stable")
    series = Series((np.arange(len(values)) if unit is None else unit)[order], values[order], day[order] * DAY)
    ends = [(i + 1) * DAY for i in range(days)]
    return looks(series, arm, int(arm.max()) + 1, control=0, rate=rate, alpha=0.05, ends=ends)


def naive(values: Array, day: Array, arm: Indices, *, unit: Indices | None = None, days: int = 30) -> bool:
    """Whether the same experiment fools somebody who takes each day for the only look: a difference of 1.96 standard errors."""
    whose = np.arange(len(values)) if unit is None else unit
    for end in range(1, days + 1):
        upto = day < end
        means, known = unit_means(Series(whose[upto], values[upto], day[upto]), len(arm))
        found = moments(means[known], arm[known], 2)
        error = np.sqrt((found.variance / np.maximum(found.n, 1)).sum())
        if found.n.min() >= SAID and abs(found.mean[1] - found.mean[0]) > 1.96 * error:
            return True
    return False
