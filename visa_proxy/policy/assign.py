"""Experiments: which arm a user, session or header value falls into. Sticky by hash, so no state is kept or shared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SESSION_HEADER = "x-visa-unit"


@dataclass(frozen=True)
class Assignment:
    """One unit's place in one experiment."""

    experiment: str
    arm: str
    """A profile name."""
    unit_hash: str
    """16 hex digits that stand for the unit in logs and the store: the unit itself may be personal data."""

    def __str__(self) -> str:
        """The form of the X-Visa-Experiment header."""
        return f"{self.experiment}/{self.arm}"


@dataclass(frozen=True)
class Experiment:
    """Weighted arms over the profiles of one tenant."""

    name: str
    unit: Literal["user", "header"]
    """What is assigned: the request's `user` field, or the value of `header`."""
    header: str
    """Lower-case header name; "" when `unit` is "user". A session is the header x-visa-unit."""
    arms: tuple[tuple[str, float], ...]
    """(profile, cumulative share), shares rising to 1 in file order."""

    @classmethod
    def of(cls, name: str, unit: str, weights: Mapping[str, float]) -> Experiment:
        """From the file: `unit` is user | session | header:<name>; weights are positive and relative to their sum."""
        total = sum(weights.values())
        running = 0.0
        arms: list[tuple[str, float]] = []
        for arm, weight in weights.items():
            running += weight
            arms.append((arm, running / total))
        if unit == "user":
            return cls(name, "user", "", tuple(arms))
        return cls(name, "header", SESSION_HEADER if unit == "session" else unit.partition(":")[2].lower(), tuple(arms))

    def assign(self, *, user: str | None, headers: Mapping[str, str]) -> Assignment | None:
        """The arm of the unit, always the same while name and arms stay; None for a request without the unit."""
        unit = user if self.unit == "user" else headers.get(self.header)
        if not unit:
            return None
        # The NUL keeps ("ab", "c") apart from ("a", "bc"): neither an experiment name nor a header value can hold one.
        digest = hashlib.sha256(f"{self.name}\0{unit}".encode("utf-8", "surrogatepass")).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64
        arm = next((arm for arm, edge in self.arms if point < edge), self.arms[-1][0])
        return Assignment(self.name, arm, digest[8:16].hex())
