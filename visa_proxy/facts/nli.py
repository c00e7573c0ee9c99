"""The fact analyzer: deterministic checks, and entailment both ways by sentence (paper, section 3.2.2, equation 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from visa_proxy.encoder.adapted import adapted_encoder, check_made_for
from visa_proxy.encoder.batcher import Batcher
from visa_proxy.encoder.minilm import MAX_TOKENS, Array
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.facts.alignment import Question, questions
from visa_proxy.facts.base import FactReport, SentenceFacts
from visa_proxy.facts.checks import differences, told
from visa_proxy.facts.head import SHAPES, Tensors, logits, pad
from visa_proxy.facts.lexical import features
from visa_proxy.optional import need

_CHUNK: Final = 32
WEIGHTS: Final = "model.safetensors"


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
class Comparison:
    """One call of `compare`, ready for the worker thread."""

    original: str
    rewritten: str
    sides: tuple[tuple[Question, ...], tuple[Question, ...]] = ((), ())
    """What is asked of the original's sentences, and of the rewrite's."""
    encoded: Mapping[str, Array] = field(default_factory=dict)
    """Sentence to token states, (tokens, 384)."""


class EntailmentAnalyzer:
    """Implements FactAnalyzer. A sentence that the other text has too needs no model; the others cost a small head."""

    def __init__(self, weights: Path) -> None:
        """`weights`: a folder with `model.safetensors`, and perhaps `layers.safetensors`. Raises ConfigError when it cannot be used."""
        self._torch = need("torch", extra="local")
        self.encoder = adapted_encoder(weights)
        self._weights = read_weights(weights)
        self._batcher: Batcher[Comparison, FactReport] = Batcher(self._run)

    async def compare(self, original: str, rewritten: str) -> FactReport:
        """Compare two versions of one answer; a text without sentences has nothing in common with one that has some."""
        first, second = split_sentences(original), split_sentences(rewritten)
        if bool(first) != bool(second):
            report = await self._batcher.submit(Comparison(original, rewritten))
            return replace(report, forward=float(not first), backward=float(not second))
        sides = tuple(questions(first, second, complete=True)), tuple(questions(second, first))
        asked = [question for side in sides for question in side]
        texts = list(dict.fromkeys(t for q in asked for t in (q.hypothesis, *(s for p in q.premises for s in p))))
        encoded = await self.encoder.encode(texts) if texts else []
        states = {text: each.tokens for text, each in zip(texts, encoded, strict=True)}
        return await self._batcher.submit(Comparison(original, rewritten, sides, states))

    def _run(self, comparisons: list[Comparison]) -> list[FactReport]:
        """In the worker thread: all candidates of a batch of comparisons go through the head together."""
        flat = [_candidate(c, q, p) for c in comparisons for side in c.sides for q in side for p in q.premises]
        scores = iter(self.probabilities(flat))
        reports: list[FactReport] = []
        for comparison in comparisons:
            lost, gained = differences(comparison.original, comparison.rewritten)
            # The best premise of a sentence counts, and the weakest sentence of a text.
            found = [
                [(q.hypothesis, max(next(scores) for _ in q.premises) * _seen(comparison, q)) for q in side]
                for side in comparison.sides
            ]
            forward, backward = (min((probability for _, probability in side), default=1.0) for side in found)
            changed = (
                *(SentenceFacts(text, "original", p, told(text, lost)) for text, p in found[0]),
                *(SentenceFacts(text, "rewritten", p, told(text, gained)) for text, p in found[1]),
            )
            reports.append(FactReport(forward, backward, lost, gained, changed))
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


def read_weights(folder: Path) -> Tensors:
    """The head's tensors by name. Raises ConfigError, naming the file, for a missing, garbled or foreign one."""
    file = folder / WEIGHTS
    safetensors = need("safetensors", extra="local")
    try:
        with safetensors.safe_open(str(file), framework="pt") as source:
            made_for = (source.metadata() or {}).get("layers", "frozen")
            weights: Tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    except Exception as error:  # the safetensors library has its own exception class, and OSError for files
        raise ConfigError([f"{file}: facts: cannot read the weights: {error}"]) from error
    check_made_for(file, made_for, folder)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != SHAPES:
        wrong = sorted(name for name in found.keys() | SHAPES.keys() if found.get(name) != SHAPES.get(name))
        raise ConfigError(
            [f"{file}: facts: not the weights of an entailment head: {', '.join(wrong)} missing or of another shape"]
        )
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise ConfigError([f"{file}: facts: the weights hold NaN, infinity or whole numbers"])
    return {name: tensor.float() for name, tensor in weights.items()}


def _seen(comparison: Comparison, question: Question) -> bool:
    """Whether the sentence is there to be judged, and the encoder took all of it: what it cut off could say anything."""
    return not question.missing and len(comparison.encoded[question.hypothesis]) < MAX_TOKENS


def _candidate(comparison: Comparison, question: Question, premise: tuple[str, ...]) -> Candidate:
    tokens = np.concatenate([comparison.encoded[sentence] for sentence in premise])
    words = features(" ".join(premise), question.hypothesis)
    return Candidate(tokens, comparison.encoded[question.hypothesis], words)
