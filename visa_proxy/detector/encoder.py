"""Ψ as a small head on the frozen sentence encoder (paper, section 3.1): one vector a clause, and they add up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.head import load_head
from visa_proxy.encoder.minilm import Encoded, SentenceEncoder
from visa_proxy.encoder.sentences import split_clauses, split_sentences
from visa_proxy.values import Space, ValueVector, load_space


@dataclass(frozen=True)
class SentenceValues:
    """What one sentence contributes to the answer's value vector."""

    sentence: str
    values: ValueVector


class EncoderDetector:
    """v = clip(Σ over clauses of head(clause, query)).

    Pooling a whole text, or a whole sentence, hides one value clause in it; a sum keeps it, and an unchanged clause contributes the
    same before and after a rewrite.
    """

    def __init__(self, encoder: SentenceEncoder, weights: Path, space: Space | None = None) -> None:
        """`weights`: a safetensors file, or a directory with `head.safetensors`; `space` defaults to Schwartz's.

        Raises ConfigError naming the file when it is missing, garbled or made for another space.
        """
        self.space = space or load_space("schwartz")
        self._encoder = encoder
        self._head = load_head(weights, self.space.names)

    async def detect(self, query: str, answer: str) -> ValueVector:
        """The value vector v of `answer`, every component in [-1, 1]; zero for an answer without sentences."""
        total = np.zeros(len(self.space))
        for row in (await self._measure(query, answer))[1]:
            total += row
        return ValueVector(self.space, total)

    async def detect_sentences(self, query: str, answer: str) -> list[SentenceValues]:
        """Every sentence with its own vector, in order; their clipped sum is `detect`'s unless one was clipped itself."""
        sentences, rows = await self._measure(query, answer)
        return [SentenceValues(sentence, ValueVector(self.space, row)) for sentence, row in zip(sentences, rows, strict=True)]

    async def _measure(self, query: str, answer: str) -> tuple[list[str], list[NDArray[np.float32]]]:
        sentences = split_sentences(answer)
        if not sentences:
            return [], []
        clauses = [split_clauses(sentence) for sentence in sentences]
        context = [query] if query.strip() else []
        encoded = await self._encoder.encode([*context, *(clause for group in clauses for clause in group)])
        rows = iter(await asyncio.to_thread(self._apply, encoded[len(context) :], encoded[0] if context else None))
        return sentences, [np.sum([next(rows) for _ in group], axis=0) for group in clauses]

    def _apply(self, clauses: Sequence[Encoded], query: Encoded | None) -> list[NDArray[np.float32]]:
        return [self._head(clause, query) for clause in clauses]
