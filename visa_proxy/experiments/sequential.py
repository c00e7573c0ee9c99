"""Inference that holds at every look, however often and for however long somebody looks.

Asymptotic confidence sequences: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences" (2021; Annals of Statistics 52, 2024), Theorem 2.2. For the mean of t observations with standard deviation σ,

    mean_t ± σ_t · sqrt( 2 (tρ² + 1) / (t²ρ²) · log( sqrt(tρ² + 1) / α ) )

covers the truth at all t at once with probability 1 - α. Turned round for α it is a p-value that may be looked at every day (the
mixture sequential probability ratio test of Johari, Pekelis, Walsh 2015 has the same form). For the difference of two arms the observations
are the influence values of the units of both (section 3 of the paper, without covariates), so that t = n₁ + n₂ and σ_t²/t = s₁²/n₁ + s₂²/n₂.

The tuning parameter ρ has to be known before the first look. Here it is always the one whose interval is narrowest at PLANNED units and
α = 0.05 (appendix B.2 of the paper): ρ² = (-2 log α + log(1 - 2 log α)) / t. The interval costs little elsewhere: in standard errors it is
3.9 wide to either side at 100 units, 3.0 at 1 000, 3.2 at 10 000, 3.6 at 100 000.

What is asymptotic is the start: nothing is said before START units in both arms. Where units come back, their means move between looks;
the guarantee then rests on their requests being exchangeable, and simulations in the tests keep it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from visa_proxy.experiments.units import Array, Moments

PLANNED: Final = 1000
"""Units in both arms together at which intervals are narrowest."""
START: Final = 30
"""Units in each arm before anything is said."""
LENT: Final = 100
"""Units of the pooled variance; see `squared_errors`."""
RHO2: Final = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / PLANNED


def boundary(units: Array | float, alpha: float) -> Array:
    """How many standard errors the interval reaches to either side, at `units` > 0 units in both arms together."""
    x = np.asarray(units, float) * RHO2
    return np.asarray(np.sqrt((x + 1) / x * 2 * (0.5 * np.log1p(x) - math.log(alpha))))


def p_value(z: Array | float, units: Array | float) -> Array:
    """The least alpha whose interval leaves out zero, at most 1; `z` is the difference in standard errors."""
    x = np.asarray(units, float) * RHO2
    return np.asarray(np.exp(np.minimum(0.0, 0.5 * np.log1p(x) - np.asarray(z, float) ** 2 * x / (2 * (x + 1)))))


def squared_errors(found: Moments, control: int, *, rate: bool) -> tuple[Array, Array]:
    """(arms,) each: squared standard error of the arm's mean, and of the control's beside it. Infinite for fewer than two units.

    A small arm in which nothing rare has happened yet has a mean that is off and a variance that is too small, both at once. So where it
    makes the error larger, each arm's variance counts LENT units of the pair's pooled variance beside its own units; a rate, which
    would have no error at all at 0 or 1, counts one success and one failure more (the rule of succession). Both are forgotten as units come.
    """
    n, variance = found.n, found.variance
    if rate:
        squares = variance * np.maximum(n - 1, 0) + n * found.mean**2
        variance = np.maximum(variance, (squares + 1) / (n + 2) - ((n * found.mean + 1) / (n + 2)) ** 2)
    freedom = np.maximum(n - 1, 0)
    pooled = (freedom * variance + freedom[control] * variance[control]) / np.maximum(freedom + freedom[control], 1)

    def squared(units: Array, own: Array) -> Array:
        lent = np.maximum(own, (units * own + LENT * pooled) / (units + LENT))
        return np.where(units >= 2, lent / np.maximum(units, 1), np.inf)

    return squared(n, variance), squared(n[control], variance[control])
