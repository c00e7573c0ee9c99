"""Held-out figures of a translator: for its MODEL_CARD and for docs/results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visa_proxy.training.detector_report import line
from visa_proxy.training.heads import Array
from visa_proxy.training.stats import cosine, interval, mean_interval
from visa_proxy.training.translator import FOREIGN, Request, hand_written, off_topic, templates, written
from visa_proxy.translator.encoder import EncoderTranslator


@dataclass(frozen=True)
class Translated:
    """One set of instructions, translated."""

    requests: Sequence[Request]
    found: Array
    """(requests, 10)"""
    sure: Array
    """(requests,)"""
    refused: Array
    """(requests,): 1 where the language was refused."""

    def figures(self) -> dict[str, tuple[float, float, float]]:
        """Name to value and 95 % interval: those of instructions that ask for values, or of those that do not."""
        wanted = np.stack([request.offset for request in self.requests])
        clusters = [request.asker or request.text for request in self.requests]
        norms = np.linalg.norm(self.found, axis=1)
        if not wanted.any():
            return {
                "norm of the offset": mean_interval(norms, clusters),
                "share with a norm of at most 0.2": mean_interval((norms <= 0.2).astype(float), clusters),
                "share refused for the language": mean_interval(self.refused, clusters),
            }
        cosines = np.array([cosine(a, b) for a, b in zip(self.found, wanted, strict=True)])
        same, spoken = np.sign(self.found) == np.sign(wanted), wanted != 0
        return {
            "mean cosine": mean_interval(cosines, clusters),
            "sign accuracy": interval(lambda i: float(same[i][spoken[i]].mean()), clusters),
            "confidence": mean_interval(self.sure, clusters),
        }


def sets(data: Path) -> dict[str, list[Request]]:
    """The held-out instructions. Raises ConfigError for missing data."""
    order = np.random.default_rng(0)
    own = written("test")
    valued = [r for r in own if r.offset.any()]
    kinds = sorted({r.kind for r in valued})
    beside = [r for r in hand_written("heldout") if r.offset.any()]
    found = {"all instructions, unseen askers": valued}
    found |= {f"{kind}, unseen askers": [r for r in valued if r.kind == kind] for kind in kinds}
    found |= {
        "instructions beside the phrases": beside,
        "templates with unseen words": [r for r in templates("heldout", 300, order) if r.offset.any()],
        "nonsense": [r for r in own if r.kind == "nonsense"],
        "requests about form or content": [r for r in own if r.kind == "form"],
        "questions, sentences, shuffled words, keyboard noise": list(off_topic(data, "heldout", 240, order)),
        "other languages": [r for r in own if r.kind == FOREIGN],
    }
    return {name: requests for name, requests in found.items() if requests}


def translate(translator: EncoderTranslator, requests: Sequence[Request]) -> Translated:
    """What the translator says, through the call that serving makes."""

    async def all_of() -> list[Any]:
        return [await translator.translate("", "", request.text) for request in requests]

    results = asyncio.run(all_of())
    found = np.stack([result.offset.array for result in results]).astype(np.float32)
    sure = np.array([result.confidence for result in results], np.float32)
    return Translated(requests, found, sure, np.array([bool(result.note) for result in results], np.float32))


def card(data: Path, folder: Path) -> list[str]:
    """The lines of the card's "Figures" section."""
    translator = EncoderTranslator(folder)
    return [
        line(f"{name}: {what}", len(requests), figure)
        for name, requests in sets(data).items()
        for what, figure in translate(translator, requests).figures().items()
    ]
