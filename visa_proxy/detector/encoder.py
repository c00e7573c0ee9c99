"""Ψ as a small head on the frozen sentence encoder (paper, section 3.1): one vector a clause, and they add up."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.head import load_head
from visa_proxy.encoder.minilm import Encoded, SentenceEncoder
from visa_proxy.encoder.sentences import split_clauses, split_sentences
from visa_proxy.values import Space, ValueVector, load_space

KNOWN: Final = 4096
"""Clauses, each with its query, whose contribution is remembered."""


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
        self._known: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

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
        clauses = [split_clauses(sentence) for sentence in sentences]
        rows = await self._rows(query if query.strip() else "", [clause for group in clauses for clause in group])
        return sentences, [np.sum([rows[clause] for clause in group], axis=0) for group in clauses]

    async def _rows(self, query: str, clauses: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """What each clause contributes: an unchanged clause is measured once, not once for every rewrite it stands in."""
        known: dict[str, NDArray[np.float32]] = {}
        missing: dict[str, None] = {}
        for clause in clauses:
            row = self._known.get((query, clause))
            if row is None:
                missing[clause] = None
            else:
                known[clause] = row
                self._known.move_to_end((query, clause))
        if missing:
            encoded = await self._encoder.encode([*([query] if query else []), *missing])
            context = encoded.pop(0) if query else None
            for clause, row in zip(missing, await asyncio.to_thread(self._apply, encoded, context), strict=True):
                known[clause] = self._known[query, clause] = row
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return known

    def _apply(self, clauses: Sequence[Encoded], query: Encoded | None) -> list[NDArray[np.float32]]:
        return [self._head(clause, query) for clause in clauses]
