"""The fact analyzer: does a rewrite say the same thing (paper, section 3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class SentenceFacts:
    """One sentence that the other version does not hold word for word."""

    sentence: str
    side: Literal["original", "rewritten"]
    """Where it stands: what an original's sentence lacks is lost, what a rewrite's has besides is gained."""
    covered: float
    """0 … 1: how surely the other version says what it says."""
    facts: tuple[str, ...] = ()
    """Those of the report's `lost` or `gained` that stand in it."""


@dataclass(frozen=True)
class FactReport:
    """How much of the original survives in the rewrite, and the reverse."""

    forward: float
    """0 … 1: the rewrite entails the original (nothing lost). The weakest sentence of the original decides."""
    backward: float
    """0 … 1: the original entails the rewrite (nothing added). The weakest sentence of the rewrite decides."""
    lost: tuple[str, ...] = field(default=())
    """Deterministic: numbers, dates, URLs, names, negations of the original that the rewrite lacks, as `kind:text`."""
    gained: tuple[str, ...] = field(default=())
    """Deterministic: those of the rewrite that the original lacks."""
    sentences: tuple[SentenceFacts, ...] = field(default=())
    """The sentences that changed, the original's first."""

    @property
    def consistency(self) -> float:
        """0 … 1: the smaller direction, and 0 when a deterministic check found a difference."""
        return 0.0 if self.lost or self.gained else min(self.forward, self.backward)


class FactAnalyzer(Protocol):
    """Implementations are safe to call concurrently."""

    async def compare(self, original: str, rewritten: str) -> FactReport:
        """Compare two versions of one answer."""
        ...
