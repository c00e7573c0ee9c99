"""How large an effect an experiment of this size would find, and how large it has to be for an effect.

An effect δ is found with probability Φ(δ/s - c), where s is the standard error of the difference and c what the test asks for: z(1 - α/2) for
one look at a size fixed in advance, the `boundary` of the always-valid interval for daily looks. The latter is a lower bound: an experiment
that is looked at daily may also find the effect earlier.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from visa_proxy.experiments.sequential import boundary

POWER: Final = 0.8
_NORMAL: Final = NormalDist()
_MOST: Final = 1e12
"""Units; an effect that needs more has no size."""


def power(effect: float, error: float, critical: float) -> float:
    """Probability, 0 … 1, that a two-sided test finds `effect` in the direction it has; `error` > 0 is the standard error."""
    return _NORMAL.cdf(abs(effect) / error - critical)


def one_look(alpha: float) -> float:
    """Standard errors that a difference must reach, for one look."""
    return _NORMAL.inv_cdf(1 - alpha / 2)


def every_look(units: float, alpha: float) -> float:
    """The same for looks at any time, the last of them at `units` units in both arms."""
    return float(boundary(units, alpha))


def detectable(error: float, critical: float) -> float:
    """The least effect found with POWER."""
    return (critical + _NORMAL.inv_cdf(POWER)) * error


def units_needed(effect: float, error: float, units: float, alpha: float, *, sequential: bool) -> int | None:
    """Units in both arms together that find `effect` (not 0) with POWER, were they shared out as the present `units` are.

    `error` is the standard error at present. None when no size that can be reached would do.
    """
    scale = error**2 * units
    least, most = 2.0, _MOST

    def missing(n: float) -> bool:
        critical = every_look(n, alpha) if sequential else one_look(alpha)
        return detectable(math.sqrt(scale / n), critical) > abs(effect)

    if missing(most):
        return None
    # What is needed falls as 1/sqrt(n), while the boundary rises as sqrt(log n) at most: one crossing, found by halving.
    while most - least > 0.5:
        middle = (least + most) / 2
        least, most = (middle, most) if missing(middle) else (least, middle)
    return math.ceil(most)
