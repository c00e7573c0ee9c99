"""Φ as a small head on the frozen sentence encoder (paper, section 3.1)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.head import load_head
from visa_proxy.encoder.minilm import Encoded, SentenceEncoder
from visa_proxy.translator.base import Translation
from visa_proxy.translator.clauses import split_clauses
from visa_proxy.values import Space, ValueVector, load_space

CONFIDENCE: Final = "confidence"


class EncoderTranslator:
    """Δv = confidence · clip(Σ direction), confidence = σ(Σ logit): one head, summed over the instruction's clauses.

    The instruction alone decides: the offset is relative, so what the answer already expresses enters in v* = clip(v + Δv).
    """

    def __init__(self, encoder: SentenceEncoder, weights: Path, space: Space | None = None) -> None:
        """`weights`: a safetensors file, or a directory with `head.safetensors`; `space` defaults to Schwartz's.

        Raises ConfigError naming the file when it is missing, garbled or made for another space.
        """
        self.space = space or load_space("schwartz")
        self._encoder = encoder
        self._head = load_head(weights, (*self.space.names, CONFIDENCE))

    async def translate(self, query: str, answer: str, instruction: str) -> Translation:
        """Δv for `instruction`; the zero vector at confidence 0 for one without a letter. A clause is cut at 128 tokens."""
        text = " ".join(instruction.split())
        if not any(character.isalpha() for character in text):
            return Translation(ValueVector.zero(self.space), 0.0)
        encoded = await self._encoder.encode(split_clauses(text))
        rows = await asyncio.to_thread(self._apply, encoded)
        output = np.sum(rows, axis=0)
        confidence = float(1.0 / (1.0 + np.exp(-np.clip(output[-1], -30.0, 30.0))))
        return Translation(ValueVector(self.space, np.clip(output[:-1], -1, 1) * confidence), confidence)

    def _apply(self, clauses: list[Encoded]) -> list[NDArray[np.float32]]:
        return [self._head(clause) for clause in clauses]
