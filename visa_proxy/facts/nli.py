"""The fact analyzer: deterministic checks, then entailment both ways, by sentence (paper, section 3.2.2, equation 4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from visa_proxy.encoder.batcher import Batcher
from visa_proxy.encoder.minilm import Array, Encoded, SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactReport
from visa_proxy.facts.checks import content_stems, differences
from visa_proxy.facts.head import SHAPES, Tensors, logits, pad
from visa_proxy.facts.lexical import features
from visa_proxy.optional import need

WINDOW: Final = 3
"""A sentence may draw on this many neighbouring sentences of the other text, so that joining and splitting cost
nothing."""
_CHUNK: Final = 32
_EDGES: Final = re.compile(r"^[\s\"“”*_(]+|[\s.!:;,\"“”*_)]+$")


@dataclass(frozen=True)
class Candidate:
    """A premise (one or more sentences) and a hypothesis sentence."""

    premise: Array
    """(tokens, 384)."""
    hypothesis: Array
    """(tokens, 384)."""
    lexical: Array
    """(16,): `lexical.features` of the two texts."""


class EntailmentAnalyzer:
    """Implements FactAnalyzer. A sentence that the other text has too needs no model; the others cost one small head
    each way."""

    def __init__(self, encoder: SentenceEncoder, weights: Path) -> None:
        """`weights`: a directory with `model.safetensors`, or that file. Raises ConfigError when it cannot be used."""
        self._torch = need("torch", extra="local")
        self._encoder = encoder
        self._weights = read_weights(weights)
        self._batcher: Batcher[tuple[Candidate, ...], list[float]] = Batcher(self._score)

    async def compare(self, original: str, rewritten: str) -> FactReport:
        """Compare two versions of one answer. A text without sentences entails and is entailed by nothing but another
        such."""
        lost, gained = differences(original, rewritten)
        first, second = split_sentences(original), split_sentences(rewritten)
        missing = _unmatched(first, second), _unmatched(second, first)
        if not any(missing):
            return FactReport(1.0, 1.0, lost, gained)
        if not first or not second:
            return FactReport(float(not first), float(not second), lost, gained)
        encoded = await self._encoder.encode([*first, *second])
        one, two = list(zip(first, encoded, strict=False)), list(zip(second, encoded[len(first) :], strict=True))
        forward = [candidates(first[i], encoded[i], two, i / len(first)) for i in missing[0]]
        backward = [candidates(second[i], two[i][1], one, i / len(second)) for i in missing[1]]
        flat = [pair for pairs in forward + backward for pair in pairs]
        scores = iter(await self._batcher.submit(tuple(flat)))
        best = [max(next(scores) for _ in pairs) for pairs in forward + backward]
        return FactReport(min(best[: len(forward)], default=1.0), min(best[len(forward) :], default=1.0), lost, gained)

    def probabilities(self, pairs: Sequence[Candidate]) -> list[float]:
        """P(the premise entails the hypothesis) of every pair, in order; in the calling thread."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].premise) + len(pairs[i].hypothesis))
        scores = np.zeros(len(pairs))
        with self._torch.inference_mode():
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                premise = pad(self._torch, [pairs[i].premise for i in chunk])
                hypothesis = pad(self._torch, [pairs[i].hypothesis for i in chunk])
                lexical = self._torch.from_numpy(np.stack([pairs[i].lexical for i in chunk]))
                found = logits(self._torch, self._weights, premise, hypothesis, lexical)
                scores[chunk] = found.sigmoid().numpy()
        return [float(score) for score in scores]

    def _score(self, requests: list[tuple[Candidate, ...]]) -> list[list[float]]:
        scores = iter(self.probabilities([pair for request in requests for pair in request]))
        return [[next(scores) for _ in request] for request in requests]


def read_weights(path: Path) -> Tensors:
    """The head's tensors by name. Raises ConfigError, naming the file, for a missing, garbled or foreign one."""
    file = path / "model.safetensors" if path.is_dir() else path
    load_file: Any = need("safetensors.torch", extra="local").load_file
    try:
        weights: Tensors = load_file(str(file))
    except Exception as error:  # the safetensors library has its own exception class, and OSError for files
        raise ConfigError([f"{file}: facts: cannot read the weights: {error}"]) from error
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != SHAPES:
        wrong = sorted(name for name in found.keys() | SHAPES.keys() if found.get(name) != SHAPES.get(name))
        raise ConfigError(
            [f"{file}: facts: not the weights of an entailment head: {', '.join(wrong)} missing or of another shape"]
        )
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ConfigError([f"{file}: facts: the weights hold NaN or infinity"])
    return weights


def candidates(sentence: str, encoded: Encoded, others: Sequence[tuple[str, Encoded]], place: float) -> list[Candidate]:
    """What `sentence` may follow from: the sentence of `others` most like it, and that one with the neighbours that
    share more.

    `place`: where the sentence stands in its text, 0 … 1; it decides between equals.
    """
    stems = content_stems(sentence)
    shared = [stems & content_stems(text) for text, _ in others]
    likeness = [
        float(encoded.pooled @ other.pooled) + len(shared[i]) / max(1, len(stems)) - 0.05 * abs(i / len(others) - place)
        for i, (_, other) in enumerate(others)
    ]
    best = max(range(len(others)), key=likeness.__getitem__)
    low, high = best, best
    covered = set(shared[best])
    while high - low + 1 < WINDOW:
        near = [i for i in (low - 1, high + 1) if 0 <= i < len(others)]
        step = max(near, key=lambda i: len(shared[i] - covered), default=best)
        if not shared[step] - covered:
            break
        covered |= shared[step]
        low, high = min(low, step), max(high, step)
    ranges = {(best, best + 1), (low, high + 1)}
    return [_candidate(sentence, encoded, others[start:end]) for start, end in sorted(ranges)]


def _candidate(sentence: str, encoded: Encoded, premise: Sequence[tuple[str, Encoded]]) -> Candidate:
    tokens = premise[0][1].tokens if len(premise) == 1 else np.concatenate([other.tokens for _, other in premise])
    return Candidate(tokens, encoded.tokens, features(" ".join(text for text, _ in premise), sentence))


def _unmatched(sentences: Sequence[str], others: Sequence[str]) -> list[int]:
    """Indices of the sentences that the other text does not hold too, white space, case and outer punctuation aside."""
    known = {_key(other) for other in others}
    return [i for i, sentence in enumerate(sentences) if _key(sentence) not in known]


def _key(sentence: str) -> str:
    return _EDGES.sub("", " ".join(sentence.casefold().split()))
