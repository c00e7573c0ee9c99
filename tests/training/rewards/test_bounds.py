"""Joint success: every bound, of one rewrite and of many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from visa_proxy.training.rewards.bounds import Bounds

ON: dict[str, Any] = {"value": 0.5, "consistency": 0.6, "nearer": 0.25, "intact": True, "faulty": False}
"""On every bound, which is within it."""


@pytest.mark.parametrize(
    "worse",
    [{"value": 0.49}, {"consistency": 0.59}, {"nearer": 0.24}, {"intact": False}, {"faulty": True}, {"nearer": math.nan}],
    ids=str,
)
def test_all_of_it_is_needed(worse: dict[str, Any]) -> None:
    assert Bounds().met(**ON)
    assert not Bounds().met(**ON | worse)
    both = {name: np.array([value, (ON | worse)[name]]) for name, value in ON.items()}
    assert list(Bounds().met(**both)) == [True, False]


@pytest.mark.parametrize(
    ("bounds", "low"), [(Bounds(value=0.2), "value"), (Bounds(consistency=0.2), "consistency"), (Bounds(nearer=0.2), "nearer")]
)
def test_each_bound_is_its_own(bounds: Bounds, low: str) -> None:
    assert bounds.met(**ON | {low: 0.2}) and not bounds.met(**ON | {low: 0.19})
    assert not Bounds().met(**ON | {low: 0.2})


def test_rounding_leaves_nobody_out() -> None:
    assert Bounds(value=0.3).met(**ON | {"value": 0.1 + 0.2}) and Bounds(nearer=0.3).met(**ON | {"nearer": 1.1 - 0.8})
