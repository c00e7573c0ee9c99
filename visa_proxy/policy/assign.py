"""Experiments: which arm a unit falls into. By hash alone: nothing is kept or shared, and every replica says the same."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

SESSION_HEADER: Final = "x-visa-unit"
HOLDOUT: Final = "holdout"
"""The arm of units that an experiment holds back: they get the tenant's default profile."""
WHOLE: Final = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Units:
    """Whom one request is about, as far as it says."""

    user: str | None = None
    conversation: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name; those that experiments look at are enough."""


NOBODY: Final = Units()


@dataclass(frozen=True, slots=True)
class Assignment:
    """One unit's place in one experiment."""

    experiment: str
    arm: str
    profile: str | None
    """None: the tenant's default profile, which the holdout gets."""
    unit_hash: str
    """16 hex digits that stand for the unit in logs and the store: the unit itself may be personal data."""

    def __str__(self) -> str:
        """The form of the X-Visa-Experiment header."""
        return f"{self.experiment}/{self.arm}"


@dataclass(frozen=True, slots=True)
class Arm:
    """What a part of the units gets."""

    name: str
    profile: str
    weight: float
    """> 0, relative to the sum over the arms."""


@dataclass(frozen=True)
class Experiment:
    """Weighted arms over the profiles of one tenant.

    An arm is drawn by weighted rendezvous hashing: of all arms, the one whose waiting time -ln(h) / weight is least, h being the
    hash of (experiment, arm, unit) on (0, 1). The times are exponential with the weights as rates, so an arm comes first with the
    probability weight / sum of weights. A unit's times at the other arms do not change with an arm's weight, and so

    - raising a weight, or adding an arm, only moves units to that arm; lowering it, or taking the arm away, only moves units off it.
      The share that moves is the total-variation distance of the old and the new shares, and less cannot move. With two arms that
      holds for every change.
    - When the shares p of three or more arms become q at once, 1 - Σ_i 1 / Σ_j max(p_j / p_i, q_j / q_i) of the units move (Moulton
      and Jiang 2018, "Maximally Consistent Sampling and the Jaccard Index of Probability Distributions": what moves fewer for one
      pair of distributions moves more for another). One interval of [0, 1) for each arm, the other usual way, moves units between
      arms that did not change: with one edge, all edges behind it shift.

    The order of the arms does not matter.
    """

    name: str
    """Part of all hashes but that of the layer: a renamed experiment shuffles its units."""
    unit: Literal["user", "conversation", "header"]
    """What is assigned; a session is the header x-visa-unit."""
    arms: tuple[Arm, ...]
    header: str = ""
    """Lower-case name, when `unit` is "header"."""
    layer: str | None = None
    """Experiments of one layer share out its units; None: a layer of its own."""
    slot: tuple[float, float] = WHOLE
    """The part of the layer that is this experiment's: from, to, of 0 … 1."""
    holdout: float = 0.0
    """Share of the experiment's units that are in no arm, 0 … 1."""
    start: float = -math.inf
    """Seconds since 1970 (UTC); from then on."""
    stop: float = math.inf
    """Before then."""

    def assign(self, units: Units, now: float) -> Assignment | None:
        """The arm of the request's unit, always the same while name and arms stay.

        None without the unit, before the start, from the stop on (`now`: seconds since 1970), and for units outside the slot.
        """
        if not self.start <= now < self.stop:
            return None
        unit = self.unit_of(units)
        if not unit:
            return None
        # Hashed once, so that the rest costs the same however long it is. JSON can hold lone surrogates.
        key = sha256(unit.encode("utf-8", "surrogatepass")).digest()
        layer_salt, own_salt, arms = self._salts
        if self.slot != WHOLE and not self.slot[0] <= _point(layer_salt + key) < self.slot[1]:
            return None
        own = sha256(own_salt + key).digest()
        unit_hash = own[8:16].hex()
        if self.holdout and _fraction(own) < self.holdout:
            return Assignment(self.name, HOLDOUT, None, unit_hash)
        first, least = self.arms[0], math.inf
        for arm, salt in arms:
            time = -math.log(_point(salt + key)) / arm.weight
            if time < least:
                first, least = arm, time
        return Assignment(self.name, first.name, first.profile, unit_hash)

    @property
    def shares(self) -> dict[str, float]:
        """Arm to its share of the experiment's units, in the order of the arms, the holdout last; they add up to 1."""
        total = sum(arm.weight for arm in self.arms)
        shares = {arm.name: (1 - self.holdout) * arm.weight / total for arm in self.arms}
        return shares | ({HOLDOUT: self.holdout} if self.holdout else {})

    def unit_of(self, units: Units) -> str | None:
        """What this experiment assigns of a request; None or "" when the request does not say."""
        if self.unit == "user":
            return units.user
        return units.conversation if self.unit == "conversation" else units.headers.get(self.header)

    @functools.cached_property
    def _salts(self) -> tuple[bytes, bytes, tuple[tuple[Arm, bytes], ...]]:
        """Of the layer, the experiment and each arm. The key that follows has a fixed length and names hold no NUL: no two collide."""
        layer = f"own layer\0{self.name}\0" if self.layer is None else f"layer\0{self.layer}\0"
        arms = tuple((arm, f"arm\0{self.name}\0{arm.name}\0".encode()) for arm in self.arms)
        return layer.encode(), f"experiment\0{self.name}\0".encode(), arms


def _point(salted: bytes) -> float:
    """A number strictly between 0 and 1."""
    return _fraction(sha256(salted).digest())


def _fraction(digest: bytes) -> float:
    # 52 bits and a half: exact in a double, and never 0, whose logarithm there is not.
    return ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) * 2**-52
