"""Ψ as small heads on one sentence encoder (paper, section 3.1): one vector a sentence, and they add up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.detector.base import Reading, SentenceValues
from visa_proxy.encoder.head import Head
from visa_proxy.encoder.minilm import Encoded, SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.values import Space, ValueVector, join

HALF_STEP: Final = 0.25
"""Half of the distance between two of the five levels."""


@dataclass(frozen=True)
class SpaceHead:
    """What reads one value space."""

    space: Space
    head: Head
    """Outputs: the dimensions, then for each the logarithm of how far off it is likely to be; see `outputs`."""
    spread: float = 1.0
    """Calibration: what the expected error is multiplied with."""


def outputs(space: Space) -> tuple[str, ...]:
    """The outputs of a head for `space`."""
    return (*space.names, *(f"log spread of {name}" for name in space.names))


def sure(deviation: float) -> float:
    """The probability that a normal error of this standard deviation stays within half a step."""
    return math.erf(HALF_STEP / (deviation * math.sqrt(2)))


class EncoderDetector:
    """v = clip(Σ over sentences of head(sentence, query, answer)), for every space by itself.

    Pooling a whole text hides one value clause in it; a sum keeps it. Sentences are encoded once, whatever number of answers they
    stand in and of spaces that read them; another space changes nothing of what the others say.
    """

    def __init__(self, encoder: SentenceEncoder, heads: Sequence[SpaceHead]) -> None:
        """`heads`: at least one, in the order of `space`'s dimensions."""
        self.space = join([each.space for each in heads])
        self._encoder = encoder
        self._heads = tuple(heads)

    async def detect(self, query: str, answer: str) -> Reading:
        """Values, confidence and sentences of `answer`; zero, and unsure of nothing, for an answer without sentences."""
        sentences = split_sentences(answer)
        if not sentences:
            return Reading(ValueVector.zero(self.space), dict.fromkeys(self.space.names, 1.0))
        asked = [query] if query.strip() else []
        encoded = await self._encoder.encode([*asked, *sentences])
        return await asyncio.to_thread(self._read, sentences, encoded[len(asked) :], encoded[0] if asked else None)

    def _read(self, sentences: Sequence[str], encoded: Sequence[Encoded], query: Encoded | None) -> Reading:
        context = np.mean([each.pooled for each in encoded], axis=0)
        rows: list[NDArray[np.float32]] = []
        confidence: dict[str, float] = {}
        for each in self._heads:
            found = each.head(encoded, None if query is None else query.pooled, context)
            size = len(each.space)
            rows.append(found[:, :size])
            spread = each.spread * np.exp(np.clip(found[:, size:].sum(0), -4.0, 1.0))
            confidence |= {name: sure(float(s)) for name, s in zip(each.space.names, spread, strict=True)}
        table = np.concatenate(rows, axis=1)
        parts = tuple(SentenceValues(s, ValueVector(self.space, row)) for s, row in zip(sentences, table, strict=True))
        return Reading(ValueVector(self.space, table.sum(0)), confidence, parts)
