"""Sample-ratio mismatch: do the arms have as many units as their weights say?

When they do not, something loses units of one arm (a crash, a cache, a client that drops a header), and no figure of the experiment can be
trusted. The alarm has to be safe under daily looks, too, so it is the exact sequential test of Lindon and Malek, "Anytime-valid inference for
multinomial count data" (NeurIPS 2022): the Bayes factor of a Dirichlet(κθ) mixture against the weights θ,

    E = Γ(κ)/Γ(κ + n) · Π Γ(κθ_a + n_a)/Γ(κθ_a) / Π θ_a^{n_a},

whose inverse is an always-valid p-value: were the weights right, it would fall below ALARM in at most that share of experiments, ever.
The p-value of the chi-square test is told beside it, for one look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from visa_proxy.optional import need

ALARM: Final = 0.01
KAPPA: Final = 1000.0
"""Concentration: looks hardest for shares that are off by one or two points, of which there are most in practice."""
LEAST_EXPECTED: Final = 5.0
"""Fewer units expected in an arm, and the chi-square distribution is no good approximation."""


@dataclass(frozen=True)
class Balance:
    """Units against weights."""

    expected: Mapping[str, float]
    """Share of each arm, in sum 1."""
    assumed: bool
    """Nobody said what the weights are: equal ones are assumed, and a holdout is left out."""
    p: float | None
    """Chi-square, one look; None while fewer than LEAST_EXPECTED units are expected in an arm."""
    always_p: float | None
    """None without units, or with fewer than two arms."""
    alarm: bool


def balance(units: Mapping[str, int], weights: Mapping[str, float], *, assumed: bool) -> Balance:
    """Compare `units` with `weights`, both by arm; arms without a weight are not looked at."""
    total = sum(weights.values())
    expected = {arm: weight / total for arm, weight in weights.items() if weight > 0}
    found = [units.get(arm, 0) for arm in expected]
    n = sum(found)
    if n == 0 or len(expected) < 2:
        return Balance(expected, assumed, None, None, False)
    gammaln = need("scipy.special", extra="report").gammaln
    log_e = float(gammaln(KAPPA) - gammaln(KAPPA + n))
    for count, share in zip(found, expected.values(), strict=True):
        log_e += float(gammaln(KAPPA * share + count) - gammaln(KAPPA * share)) - count * math.log(share)
    always = math.exp(min(0.0, -log_e))
    p = None
    if min(expected.values()) * n >= LEAST_EXPECTED:
        p = float(need("scipy.stats", extra="report").chisquare(found, [share * n for share in expected.values()]).pvalue)
    return Balance(expected, assumed, p, always, always <= ALARM)
