"""Φ as a small head on the adapted sentence encoder (paper, section 3.1)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from visa_proxy.encoder.adapted import adapted_encoder, check_made_for
from visa_proxy.encoder.head import WEIGHTS, load_head
from visa_proxy.translator.base import NOT_ENGLISH, Translation
from visa_proxy.values import ValueVector, load_space

BUNDLED: Final = Path(__file__).parent.parent / "assets" / "translator"
OUTPUTS: Final = (
    "universalism", "benevolence", "tradition", "conformity", "security", "power", "achievement", "hedonism", "stimulation",
    "self_direction", "confidence", "foreign",
)  # fmt: skip
"""Of the head: the offset by Schwartz's values, and log-odds that it asks for a value, and that it is in another language."""


class EncoderTranslator:
    """Δv = confidence · clip(direction).

    The instruction alone decides: the offset is relative, so what the answer already expresses enters in v* = clip(v + Δv).
    """

    def __init__(self, weights: Path = BUNDLED) -> None:
        """`weights`: a folder with `head.safetensors` and the layers of its encoder.

        Raises ConfigError naming the file when one is missing, garbled or made for another.
        """
        self.space = load_space("schwartz")
        self._encoder = adapted_encoder(weights)
        self._head = load_head(weights, OUTPUTS)
        check_made_for(weights / WEIGHTS, self._head.metadata.get("layers"), weights)

    async def translate(self, query: str, answer: str, instruction: str) -> Translation:
        """Δv for `instruction`, which is cut at 128 tokens; zero at confidence 0 for one without a letter, or in another language."""
        text = " ".join(instruction.split())
        if not any(character.isalpha() for character in text):
            return Translation(ValueVector.zero(self.space), 0.0)
        encoded = await self._encoder.encode([text])
        found = (await asyncio.to_thread(self._head, encoded))[0]
        confidence, foreign = (1.0 / (1.0 + np.exp(-np.clip(found[-2:], -30.0, 30.0)))).tolist()
        if foreign > 0.5:
            return Translation(ValueVector.zero(self.space), 0.0, note=NOT_ENGLISH)
        return Translation(ValueVector(self.space, np.clip(found[:-2], -1, 1) * confidence), confidence)
