"""Ψ: what values does an answer express (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from visa_proxy.values import Space, ValueVector


@dataclass(frozen=True)
class SentenceValues:
    """What one sentence contributes to the answer's value vector."""

    sentence: str
    values: ValueVector


@dataclass(frozen=True)
class Reading:
    """An answer, measured."""

    values: ValueVector
    """v, every component in [-1, 1]."""
    confidence: dict[str, float] = field(default_factory=dict)
    """For each dimension the probability, 0 … 1, that its true level is within half a step (0.25) of the measured one; empty from a
    backend that does not say."""
    sentences: tuple[SentenceValues, ...] = ()
    """Every sentence with what it contributes, in order; empty from a backend that reads the text as a whole."""
    explanation: str = ""
    """In words, from a backend that gives one."""


class Detector(Protocol):
    """Measures an answer in the context of its query. Implementations are safe to call concurrently."""

    space: Space

    async def detect(self, query: str, answer: str) -> Reading:
        """Raises InstrumentError when a remote backend does not answer as it should."""
        ...
