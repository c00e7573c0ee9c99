"""Training Ψ (paper, section 3.1, Eq. 1): neutral answers with value phrases in them, and answers labelled by others."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from visa_proxy.encoder.head import WEIGHTS
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.encoder.sentences import split_clauses, split_sentences
from visa_proxy.training.compose import dress, neutral_frame, one_hot
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.heads import Example, FitRecipe, Fitter, encode_all, save_head
from visa_proxy.training.labelled import Labelled, read_fulcra, read_personas
from visa_proxy.training.phrases import Phrase, Split, phrases
from visa_proxy.values import load_space

FRAMES: Final = (
    "You can", "You should", "Try to", "It helps to", "It is a good idea to", "Start by", "Consider", "Make sure to",
    "One option is to", "It is important to", "The best way is to", "This helps you",
)  # fmt: skip


class DetectorRecipe(BaseModel):
    """How much of what goes into the detector's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitRecipe
    windows: int = Field(3000, ge=1)
    """Neutral answers that get phrases."""
    phrases_per_window: tuple[float, ...] = (0.1, 0.0, 0.5, 0.4)
    """Probability of 0, 1, 2, … phrases in an answer."""
    emphasis: float = Field(4.0, ge=0)
    """The error of a component at level ±1 counts 1 + this much: nine in ten components are 0, and would drown it."""
    fulcra_weight: float = Field(0.4, ge=0)
    persona_weight: float = Field(0.5, ge=0)
    tricky_weight: float = Field(2.0, ge=0)


def train(encoder: SentenceEncoder, data: Path, recipe: DetectorRecipe, out: Path, seed: int, cache: Path | None) -> None:
    """Fits the head and writes `out/head.safetensors`. `cache`: folder for encodings. Raises ConfigError for missing data."""
    examples = training_examples(data, recipe, seed)
    texts = [text for e in examples for text in (*e.clauses, *([e.query] if e.query else []))]
    with Progress() as progress:
        encodings = encode_all(encoder, texts, progress, cache)
        fitter = Fitter(encodings, recipe.fit, load_space("schwartz").names, ClippedError(recipe.emphasis), progress)
        tensors = fitter.fit(examples, seed)
    save_head(out / WEIGHTS, tensors, load_space("schwartz").names)


@dataclass(frozen=True)
class ClippedError:
    """Squared error of the clipped sum; beyond ±1 a tenth of the slope is left, so an overshoot comes back."""

    emphasis: float

    def __call__(self, sums: Any, targets: Any, masks: Any, weights: Any) -> Any:
        clipped = sums.clamp(-1, 1)
        error = (clipped + 0.1 * (sums - clipped) - targets) ** 2 * (1 + self.emphasis * targets.abs())
        return ((error * masks).sum(1) * weights).mean()


def training_examples(data: Path, recipe: DetectorRecipe, seed: int) -> list[Example]:
    """Everything the head learns from; nothing of a held-out part."""
    order = np.random.default_rng(seed)
    pool = phrases("train")
    examples = [*dressed(data, recipe, pool, order), *alone(pool)]
    for row in (row for row in read_fulcra(data) if not row.heldout):
        examples += _whole(row, recipe.fulcra_weight)
    for row in (row for row in read_personas(data) if not row.heldout):
        examples += _whole(row, recipe.persona_weight)
    nothing = np.zeros(len(load_space("schwartz")), np.float32)
    return examples + [_sentence(sentence, nothing, weight=recipe.tricky_weight) for sentence in tricky("train")]


def dressed(data: Path, recipe: DetectorRecipe, pool: Sequence[Phrase], order: np.random.Generator) -> list[Example]:
    """The sentences of neutral answers, some with phrases in them, each with what it expresses by itself."""
    answers = read_dolly(data, "train")
    queue = _endless(pool, order)
    examples: list[Example] = []
    for position in order.permutation(len(answers))[: recipe.windows]:
        answer = answers[position]
        sentences = [_framed(sentence, order) for sentence in split_sentences(answer.text)]
        count = int(order.choice(len(recipe.phrases_per_window), p=recipe.phrases_per_window))
        texts, parts = dress(sentences, [next(queue) for _ in range(count)], order)
        examples += [_sentence(text, part, answer.instruction) for text, part in zip(texts, parts, strict=True)]
    return examples


def alone(pool: Sequence[Phrase]) -> list[Example]:
    """Every phrase by itself."""
    return [_sentence(phrase.text.strip(" ,"), one_hot(phrase.value, phrase.level)) for phrase in pool]


def tricky(split: Split) -> list[str]:
    """Sentences with the words of a value and no stand on it; every fifth is held out."""
    source = importlib.resources.files("visa_proxy.training") / "data" / "tricky.yaml"
    sentences: list[str] = yaml.safe_load(source.read_text(encoding="utf-8"))["neutral"]
    return [sentence for i, sentence in enumerate(sentences) if (i % 5 == 4) == (split == "heldout")]


def _framed(sentence: str, order: np.random.Generator) -> str:
    # Reframes replace a neutral lead-in; the head must learn that the lead-in itself says nothing.
    if order.random() < 0.25:
        return neutral_frame(sentence, FRAMES[order.integers(len(FRAMES))]) or sentence
    return sentence


def _endless(group: Sequence[Phrase], order: np.random.Generator) -> Iterator[Phrase]:
    while True:
        for position in order.permutation(len(group)):
            yield group[position]


def _sentence(text: str, target: NDArray[np.float32], query: str = "", weight: float = 1.0) -> Example:
    return Example(tuple(split_clauses(text)), target.astype(np.float32), np.ones(len(target), np.float32), query, weight)


def _whole(row: Labelled, weight: float) -> Iterator[Example]:
    clauses = tuple(clause for sentence in split_sentences(row.text)[:12] for clause in split_clauses(sentence))
    if clauses and weight:
        yield Example(clauses, row.target, row.mask, row.query, weight)
