"""Rows become arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visa_proxy.evaluation.cases import NAMED, Case, space
from visa_proxy.evaluation.metrics import Measured
from visa_proxy.evaluation.rows import Row
from visa_proxy.evaluation.stats import Ratio

Array = NDArray[np.float64]


def measured(cases: Sequence[Case], rows: Sequence[Row]) -> Measured:
    """`rows`: one for each case, in their order."""
    size = len(space())
    answered = np.array(["error" not in row for row in rows])
    target = np.stack([case.target.array for case in cases])
    before, after = (_vectors(rows, when, "values", size) for when in ("before", "after"))
    with_words = answered.any() and all("words" in row["after"] for row in rows if "error" not in row)
    numbers = {
        name: np.array([float(row.get(name, np.nan)) for row in rows])
        for name in ("consistency", "forward", "backward", "kept", "spans", "length")
    }
    return Measured(
        answered=answered,
        before=before,
        after=after,
        target=target,
        named=_named(cases, target, before),
        faulty=np.array([bool(row.get("fault")) for row in rows]),
        changed=np.array([bool(row.get("changed")) for row in rows]),
        words_before=_vectors(rows, "before", "words", size) if with_words else None,
        words_after=_vectors(rows, "after", "words", size) if with_words else None,
        **numbers,
    )


def _vectors(rows: Sequence[Row], when: str, what: str, size: int) -> Array:
    """(rows, size); NaN for a row without a text."""
    nothing = [np.nan] * size
    return np.array([nothing if "error" in row else row[when][what] for row in rows], np.float64)


def _named(cases: Sequence[Case], target: Array, before: Array) -> NDArray[np.bool_]:
    """What Δv names; for a case that does not say, the values whose target lies off what was measured."""
    off = np.nan_to_num(np.abs(target - before)) >= NAMED
    said = [None if case.offset is None else [bool(case.offset.get(name)) for name in case.target.space.names] for case in cases]
    return np.array([found if given is None else given for given, found in zip(said, off, strict=True)], np.bool_)


def surprise(rows: Sequence[Row], when: str = "after") -> Ratio | None:
    """Nats per token of the texts, or of the answers (`when`: "before"); its exponential is the perplexity. None where nobody measured it."""
    answered = np.array(["error" not in row for row in rows])
    found: list[Any] = [row[when] if "error" not in row else {"nll": 0.0, "tokens": 0} for row in rows]
    if not answered.any() or not all("nll" in each for each in found):
        return None
    return Ratio.of(np.array([e["nll"] for e in found]), np.array([float(e["tokens"]) for e in found]), answered)
