"""The figures of tables 1 and 5 (paper), and more: pure functions of what the judge measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.evaluation.stats import Ratio
from visa_proxy.training.rewards.bounds import TINY, Bounds

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

HIGHER: Final = "↑"
LOWER: Final = "↓"
TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "consistency": ("consistency", HIGHER),
    "weighted": ("consistency, paper's weights", HIGHER),
    "forward": ("consistency (fwd)", HIGHER),
    "backward": ("consistency (bwd)", HIGHER),
    "l2": ("value L2", LOWER),
    "cosine": ("value cosine", HIGHER),
    "success": ("joint success rate", HIGHER),
    "paper": ("joint success, paper's bounds", HIGHER),
    "score": ("score", HIGHER),
    "faulty": ("faulty form", LOWER),
    "spans": ("spans preserved", HIGHER),
    "length": ("length ratio", ""),
    "drift": ("collateral drift", LOWER),
    "changed": ("share changed", ""),
    "deviation": ("MAD", LOWER),
    "lexicon": ("lexicon, asked", HIGHER),
    "lexicon_other": ("lexicon, others", LOWER),
}
"""What each figure is called, and which way is better."""


PAPER_L2: Final = 0.8
PAPER_CONSISTENCY: Final = 0.3
"""The bounds of the paper's joint success rate (section 4.5) as its table 5 lets one recover them; our copy has lost the numbers.

Of all pairs in steps of 0.05, these give the 20 rates of that table best from its means and deviations, L2 and consistency taken as
normal and independent: 0.020 off in quadratic mean, the next pair 0.031."""


@dataclass(frozen=True)
class Measured:
    """What one system made of N cases, in the order of the cases. Rows that are not `answered` hold NaN or 0, and are looked at nowhere."""

    answered: Flags
    """(N,): the system gave a text."""
    before: Array
    """(N, values): the answer's own, as measured."""
    after: Array
    """(N, values)"""
    target: Array
    """(N, values): v*."""
    named: Flags
    """(N, values): what Δv asks to change."""
    consistency: Array
    """(N,): the weaker direction, 0 where a deterministic fact differs."""
    forward: Array
    backward: Array
    kept: Array
    """(N,): verbatim spans of the answer that stand in the text, whole and in order."""
    spans: Array
    """(N,): those of the answer."""
    length: Array
    """(N,): characters of the text by those of the answer."""
    faulty: Flags
    """(N,): the form is not that of an answer; see `visa_proxy.training.rewards.form`."""
    changed: Flags
    """(N,): the words are not those of the answer."""
    words_before: Array | None = None
    """(N, values): words of the lexicon per sentence."""
    words_after: Array | None = None


def cosine(a: Array, b: Array) -> Array:
    """Row by row, in [-1, 1]; 0 where either is zero (paper, eq. 3)."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.where(norms > 1e-12, (a * b).sum(-1) / np.maximum(norms, 1e-12), 0.0)


def weighted(forward: Array, backward: Array) -> Array:
    """(2 · forward + backward) / 3: what every row of the paper's tables 1 and 5 has as its consistency."""
    return (2 * forward + backward) / 3


def success(measured: Measured, bounds: Bounds) -> Flags:
    """(N,): joint success. A case without an answer is none."""
    return measured.answered & bounds.met(
        value=cosine(measured.after, measured.target),
        consistency=measured.consistency,
        nearer=distance(measured.before, measured.target) - distance(measured.after, measured.target),
        intact=measured.kept >= measured.spans,
        faulty=measured.faulty | ~measured.changed,
    )


def paper_success(measured: Measured) -> Flags:
    """(N,): joint success by the bounds of the paper (section 4.5), over its weighted consistency."""
    near = distance(measured.after, measured.target) <= PAPER_L2 + TINY
    found: Flags = measured.answered & near & (weighted(measured.forward, measured.backward) >= PAPER_CONSISTENCY - TINY)
    return found


def score(measured: Measured, bounds: Bounds) -> Array:
    """(N,), 0 … 1: min(1, consistency / its bound) × (1 + cosine) / 2; 0 for a faulty form, and for the answer itself.

    The paper's two rewards as a product. Beyond the bound more consistency earns nothing: it would reward doing less.
    """
    aligned = (1 + cosine(measured.after, measured.target)) / 2
    enough = np.minimum(1.0, measured.consistency / max(bounds.consistency, TINY))
    return np.where(measured.faulty | ~measured.changed, 0.0, enough * aligned)


def distance(a: Array, b: Array) -> Array:
    """L2, row by row."""
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def gain(measured: Measured) -> Array:
    """(N,): how much nearer to their targets the values came that were asked for: Σ over them of |v − v*| − |v' − v*|."""
    nearer = np.abs(measured.before - measured.target) - np.abs(measured.after - measured.target)
    return np.asarray(np.where(measured.named, nearer, 0.0).sum(1))


def side_effect(measured: Measured) -> Array:
    """(N,): how far the others moved, wherever to: Σ over them of |v' − v|."""
    return np.asarray(np.where(measured.named, 0.0, np.abs(measured.after - measured.before)).sum(1))


def figures(measured: Measured, bounds: Bounds) -> dict[str, Ratio]:
    """Each figure by name, see `TITLES`.

    Collateral drift is Σ side effect / Σ gain over all answered cases, so that a case without gain spoils no other; it is undefined (NaN)
    for a system whose whole gain is not above 0. The two rates of success count every case, the others those with an answer.
    """
    answered, everything = measured.answered, np.ones_like(measured.answered)
    off = np.abs(measured.after - measured.target)
    found = {
        "consistency": Ratio.mean(measured.consistency, answered),
        "weighted": Ratio.mean(weighted(measured.forward, measured.backward), answered),
        "forward": Ratio.mean(measured.forward, answered),
        "backward": Ratio.mean(measured.backward, answered),
        "l2": Ratio.mean(distance(measured.after, measured.target), answered),
        "cosine": Ratio.mean(cosine(measured.after, measured.target), answered),
        "success": Ratio.mean(success(measured, bounds).astype(np.float64), everything),
        "paper": Ratio.mean(paper_success(measured).astype(np.float64), everything),
        "score": Ratio.mean(score(measured, bounds), answered),
        "faulty": Ratio.mean(measured.faulty.astype(np.float64), answered),
        "spans": Ratio.of(measured.kept, measured.spans, answered),
        "length": Ratio.mean(measured.length, answered),
        "drift": Ratio.of(side_effect(measured), gain(measured), answered),
        "changed": Ratio.mean(measured.changed.astype(np.float64), answered),
        "deviation": Ratio.mean(off.mean(1), answered),
    }
    if measured.words_before is not None and measured.words_after is not None:
        found |= _lexicon(measured, measured.words_after - measured.words_before)
    return found


def _lexicon(measured: Measured, more: Array) -> dict[str, Ratio]:
    """Words of the values asked for, more or fewer as asked, and words of the others, more or fewer; per sentence, mean over cases."""
    asked = np.where(measured.named, more * np.sign(measured.target - measured.before), 0.0).sum(1)
    others = np.where(measured.named, 0.0, np.abs(more)).sum(1)
    return {"lexicon": Ratio.mean(asked, measured.answered), "lexicon_other": Ratio.mean(others, measured.answered)}


def deviations(measured: Measured) -> Array:
    """(values,): mean |v' − v*| of each value (table 5); NaN where nothing was answered."""
    if not measured.answered.any():
        return np.full(measured.target.shape[1], np.nan)
    return np.asarray(np.abs(measured.after - measured.target)[measured.answered].mean(0))


def spread(ratio: Ratio) -> float:
    """Standard deviation (of the population) of what a mean is the mean of."""
    values = ratio.over[ratio.rows]
    return float(values.std()) if len(values) else float("nan")
