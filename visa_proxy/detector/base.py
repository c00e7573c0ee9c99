"""Ψ: what values does an answer express (paper, section 3.1)."""

from __future__ import annotations

from typing import Protocol

from visa_proxy.values import Space, ValueVector


class Detector(Protocol):
    """Measures an answer in the context of its query. Implementations are safe to call concurrently."""

    space: Space

    async def detect(self, query: str, answer: str) -> ValueVector:
        """The value vector v of `answer`, every component in [-1, 1]."""
        ...
