"""The fact analyzer: deterministic checks, and entailment both ways by sentence (paper, section 3.2.2, equation 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from visa_proxy.encoder.batcher import Batcher
from visa_proxy.encoder.minilm import Array, Encoded, SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactReport
from visa_proxy.facts.checks import content_stems, differences, sentence_key
from visa_proxy.facts.head import SHAPES, Tensors, logits, pad
from visa_proxy.facts.lexical import features
from visa_proxy.optional import need

WINDOW: Final = 3
"""A sentence may draw on this many neighbouring sentences of the other text, so that joining and splitting cost
nothing."""
_CHUNK: Final = 32


@dataclass(frozen=True)
class Candidate:
    """A premise (one or more sentences) and a hypothesis sentence."""

    premise: Array
    """(tokens, 384)."""
    hypothesis: Array
    """(tokens, 384)."""
    lexical: Array
    """(16,): `lexical.features` of the two texts."""


@dataclass(frozen=True)
class Sentence:
    """A sentence with what aligning it needs."""

    text: str
    encoded: Encoded
    stems: frozenset[str]


@dataclass(frozen=True)
class Comparison:
    """One call of `compare`, ready for the worker thread; without sentences when none needs the head."""

    original: str
    rewritten: str
    first: tuple[Sentence, ...] = ()
    second: tuple[Sentence, ...] = ()


class EntailmentAnalyzer:
    """Implements FactAnalyzer. A sentence that the other text has too needs no model; the others cost a small head."""

    def __init__(self, encoder: SentenceEncoder, weights: Path) -> None:
        """`weights`: a directory with `model.safetensors`, or that file. Raises ConfigError when it cannot be used."""
        self._torch = need("torch", extra="local")
        self._encoder = encoder
        self._weights = read_weights(weights)
        self._batcher: Batcher[Comparison, FactReport] = Batcher(self._run)

    async def compare(self, original: str, rewritten: str) -> FactReport:
        """Compare two versions of one answer; a text without sentences has nothing in common with one that has some."""
        first, second = split_sentences(original), split_sentences(rewritten)
        if not _unmatched(first, second) and not _unmatched(second, first):
            return await self._batcher.submit(Comparison(original, rewritten))
        if not first or not second:
            report = await self._batcher.submit(Comparison(original, rewritten))
            return replace(report, forward=float(not first), backward=float(not second))
        texts = [*first, *second]
        encoded = await self._encoder.encode(texts)
        sentences = tuple(Sentence(t, e, content_stems(t)) for t, e in zip(texts, encoded, strict=True))
        comparison = Comparison(original, rewritten, sentences[: len(first)], sentences[len(first) :])
        return await self._batcher.submit(comparison)

    def _run(self, comparisons: list[Comparison]) -> list[FactReport]:
        """In the worker thread: all candidates of a batch of comparisons go through the head together."""
        asked = [(_asked(c.first, c.second), _asked(c.second, c.first)) for c in comparisons]
        flat = [candidate for sides in asked for side in sides for found in side for candidate in found]
        scores = iter(self.probabilities(flat))
        reports: list[FactReport] = []
        for comparison, sides in zip(comparisons, asked, strict=True):
            lost, gained = differences(comparison.original, comparison.rewritten)
            # The best premise of a sentence counts, and the weakest sentence of a text.
            forward, backward = (min((max(next(scores) for _ in found) for found in side), default=1.0) for side in sides)
            reports.append(FactReport(forward, backward, lost, gained))
        return reports

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


def _asked(sentences: Sequence[Sentence], others: Sequence[Sentence]) -> list[list[Candidate]]:
    """For each sentence that `others` do not hold, what it may follow from."""
    unmatched = _unmatched([s.text for s in sentences], [o.text for o in others])
    return [candidates(sentences[i], others, i / len(sentences)) for i in unmatched]


def candidates(sentence: Sentence, others: Sequence[Sentence], place: float) -> list[Candidate]:
    """What `sentence` may follow from: the one of `others` most like it, and that with the neighbours that share more.

    `place`: where the sentence stands in its text, 0 … 1; it decides between equals.
    """
    shared = [sentence.stems & other.stems for other in others]
    likeness = [
        float(sentence.encoded.pooled @ other.encoded.pooled)
        + len(shared[i]) / max(1, len(sentence.stems))
        - 0.05 * abs(i / len(others) - place)
        for i, other in enumerate(others)
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
    return [_candidate(sentence, others[start:end]) for start, end in sorted(ranges)]


def _candidate(sentence: Sentence, premise: Sequence[Sentence]) -> Candidate:
    tokens = np.concatenate([other.encoded.tokens for other in premise])
    return Candidate(tokens, sentence.encoded.tokens, features(" ".join(o.text for o in premise), sentence.text))


def _unmatched(sentences: Sequence[str], others: Sequence[str]) -> list[int]:
    """Indices of the sentences that the other text does not hold too, white space, case and outer punctuation aside."""
    known = {sentence_key(other) for other in others}
    return [i for i, sentence in enumerate(sentences) if sentence_key(sentence) not in known]
