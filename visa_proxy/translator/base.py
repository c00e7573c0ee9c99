"""Φ: what shift does an instruction ask for (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from visa_proxy.values import Space, ValueVector


@dataclass(frozen=True)
class Translation:
    """An offset Δv and how sure the translator is that the instruction asks for it."""

    offset: ValueVector
    confidence: float
    """0 … 1; near 0 for text that is no value instruction."""
    language: str = ""
    """Of the instruction, as a BCP 47 tag ("und": not known), from a backend that tells; else empty."""
    note: str = ""
    """Why there is no offset, for the person who wrote the instruction; "" where there is nothing to say."""


NOT_ENGLISH: Final = "the instruction does not seem to be in English, which is the only language this translator reads"


class Translator(Protocol):
    """Implementations are safe to call concurrently."""

    space: Space

    async def translate(self, query: str, answer: str, instruction: str) -> Translation:
        """Δv for `instruction`, relative to this query and answer (paper, Eq. 2).

        Raises InstrumentError when a remote backend does not answer as it should.
        """
        ...
