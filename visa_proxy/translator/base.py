"""Φ: what shift does an instruction ask for (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from visa_proxy.values import Space, ValueVector


@dataclass(frozen=True)
class Translation:
    """An offset Δv and how sure the translator is that the instruction asks for it."""

    offset: ValueVector
    confidence: float
    """0 … 1; near 0 for text that is no value instruction."""


class Translator(Protocol):
    """Implementations are safe to call concurrently."""

    space: Space

    async def translate(self, query: str, answer: str, instruction: str) -> Translation:
        """Δv for `instruction`, relative to this query and answer (paper, Eq. 2)."""
        ...
