"""Held-out figures of a trained translator, for its MODEL_CARD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visa_proxy.encoder.head import Head, load_head
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.training.cards import cosine, figure
from visa_proxy.training.heads import Array
from visa_proxy.training.translator import Request, hand_written, joined, off_topic, templates
from visa_proxy.translator.clauses import split_clauses
from visa_proxy.translator.encoder import CONFIDENCE
from visa_proxy.values import load_space


def evaluate(encoder: SentenceEncoder, data: Path, weights: Path, cache: Path | None = None) -> list[str]:
    """The lines of the card's "Figures" section; `cache` is not needed for so few texts."""
    del cache
    head = load_head(weights, (*load_space("schwartz").names, CONFIDENCE))
    order = np.random.default_rng(0)
    written = list(hand_written("heldout"))
    valued = [request for request in written if request.offset.any()]
    sets = {
        "instructions beside the phrases": [r for r in valued if r.kind == "instruction"],
        "oblique instructions": [r for r in valued if r.kind == "oblique"],
        "templates with held-out words": [r for r in templates("heldout", 300, order) if r.offset.any()],
        "two or three held-out instructions joined": [joined(valued, order) for _ in range(200)],
    }
    lines: list[str] = []
    for name, requests in sets.items():
        kept = [request for request in requests if request.offset.any()]
        lines += _signed(name, kept, *_translate(encoder, head, kept))
    plain = [request for request in written if not request.offset.any()]
    lines += _quiet("requests about form or other things", plain, *_translate(encoder, head, plain))
    noise = list(off_topic(data, "heldout", 240, order))
    lines += _quiet("questions, sentences, shuffled words, keyboard noise", noise, *_translate(encoder, head, noise))
    return lines


def _translate(encoder: SentenceEncoder, head: Head, requests: Sequence[Request]) -> tuple[Array, Array]:
    outputs = np.stack([_summed(encoder, head, request.text) for request in requests])
    sure: Array = (1.0 / (1.0 + np.exp(-outputs[:, -1]))).astype(np.float32)
    offsets: Array = np.clip(outputs[:, :-1], -1, 1) * sure[:, None]
    return offsets, sure


def _summed(encoder: SentenceEncoder, head: Head, text: str) -> Array:
    rows: Array = np.stack([head(clause) for clause in encoder.encode_now(split_clauses(text) or [text])])
    total: Array = rows.sum(0)
    return total


def _signed(name: str, requests: Sequence[Request], found: Array, sure: Array) -> list[str]:
    clusters = [request.text for request in requests]
    wanted = np.stack([request.offset for request in requests])
    cosines = [cosine(a, b) for a, b in zip(found, wanted, strict=True)]
    signs = [float((np.sign(a[b != 0]) == np.sign(b[b != 0])).mean()) for a, b in zip(found, wanted, strict=True)]
    return [
        figure(f"{name}: cosine", cosines, clusters),
        figure(f"{name}: sign accuracy", signs, clusters),
        figure(f"{name}: confidence", [float(c) for c in sure], clusters),
    ]


def _quiet(name: str, requests: Sequence[Request], found: Array, sure: Array) -> list[str]:
    clusters = [request.text for request in requests]
    return [
        figure(f"{name}: norm of the offset", [float(np.linalg.norm(row)) for row in found], clusters),
        figure(f"{name}: confidence", [float(c) for c in sure], clusters),
    ]
