"""Training Ψ (paper, section 3.1, Eq. 1): neutral answers with value phrases in them, and answers labelled by others."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from visa_proxy.encoder.head import WEIGHTS
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.compose import dress, neutral_frame
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.heads import Array, Example, FitRecipe, Fitter, encode_all, save_head
from visa_proxy.training.labelled import Labelled, read_fulcra, read_personas, share
from visa_proxy.training.phrases import Phrase, phrases
from visa_proxy.values import load_space

FRAMES: Final = (
    "You can", "You should", "Try to", "It helps to", "It is a good idea to", "Start by", "Consider", "Make sure to",
    "One option is to", "It is important to", "The best way is to", "This helps you",
)  # fmt: skip


class DetectorRecipe(BaseModel):
    """How much of what goes into the detector's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitRecipe
    windows: int = Field(3500, ge=1)
    """Neutral answers that get phrases."""
    plain_windows: int = Field(1000, ge=0)
    """Neutral answers left as they are."""
    phrases_per_window: tuple[float, ...] = (0.05, 0.3, 0.35, 0.3)
    """Probability of 0, 1, 2, … phrases in an answer."""
    fulcra_weight: float = Field(0.5, ge=0)
    persona_weight: float = Field(0.5, ge=0)
    tricky_weight: float = Field(2.0, ge=0)


def train(encoder: SentenceEncoder, data: Path, recipe: DetectorRecipe, out: Path, seed: int, cache: Path | None) -> None:
    """Fits the head and writes `out/head.safetensors`. `cache`: folder for encodings. Raises ConfigError for missing data."""
    examples = training_examples(data, recipe, seed)
    texts = [text for e in examples for text in (*e.sentences, *([e.query] if e.query else []))]
    with Progress() as progress:
        encodings = encode_all(encoder, texts, progress, cache)
        fitter = Fitter(encodings, recipe.fit, load_space("schwartz").names, clipped_error, progress)
        tensors = fitter.fit(examples, seed)
    save_head(out / WEIGHTS, tensors, load_space("schwartz").names)


def clipped_error(sums: Any, targets: Any, masks: Any, weights: Any) -> Any:
    """Squared error of the clipped sum; beyond ±1 a tenth of the slope is left, so an overshoot comes back."""
    clipped = sums.clamp(-1, 1)
    error = (clipped + 0.1 * (sums - clipped) - targets) ** 2
    return ((error * masks).sum(1) * weights).mean()


def training_examples(data: Path, recipe: DetectorRecipe, seed: int) -> list[Example]:
    """Everything the head learns from; nothing of a held-out split."""
    order = np.random.default_rng(seed)
    examples = dressed(data, recipe, order)
    for row in (row for row in read_fulcra(data) if not row.heldout):
        examples += _whole(row, recipe.fulcra_weight)
    for row in (row for row in read_personas(data) if not row.heldout):
        examples += _whole(row, recipe.persona_weight)
    for sentence in tricky("train"):
        examples.append(_neutral([sentence], "", recipe.tricky_weight))
    return examples


def dressed(data: Path, recipe: DetectorRecipe, order: np.random.Generator) -> list[Example]:
    """Neutral answers with phrases of one fold each, so that a validation fold holds phrases its training never saw."""
    answers = read_dolly(data, "train")
    chosen = [answers[i] for i in order.permutation(len(answers))[: recipe.windows + recipe.plain_windows]]
    folds: dict[int, list[Phrase]] = {}
    for phrase in phrases("train"):
        folds.setdefault(int(share(phrase.text) * recipe.fit.folds), []).append(phrase)
    queues = {fold: _endless(group, order) for fold, group in folds.items()}
    examples: list[Example] = []
    for number, answer in enumerate(chosen):
        sentences = [_framed(sentence, order) for sentence in split_sentences(answer.text)]
        if number >= recipe.windows:
            examples.append(_neutral(sentences, answer.instruction, 1.0))
            continue
        fold = int(order.choice(sorted(queues)))
        count = int(order.choice(len(recipe.phrases_per_window), p=recipe.phrases_per_window))
        texts, parts = dress(sentences, [next(queues[fold]) for _ in range(count)], order)
        examples.append(_summed(texts, parts, answer.instruction, (fold + 0.5) / recipe.fit.folds))
    return examples


def tricky(split: str) -> list[str]:
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


def _summed(texts: Sequence[str], parts: Array, query: str, fold: float, weight: float = 1.0) -> Example:
    target: NDArray[np.float32] = np.clip(parts.sum(0), -1, 1)
    return Example(tuple(texts), target, np.ones_like(target), parts, query, fold, weight)


def _neutral(sentences: Sequence[str], query: str, weight: float) -> Example:
    parts = np.zeros((len(sentences), len(load_space("schwartz"))), np.float32)
    return _summed(sentences, parts, query, share(sentences[0]), weight)


def _whole(row: Labelled, weight: float) -> Iterator[Example]:
    sentences = tuple(split_sentences(row.text)[:24])
    if sentences and weight:
        yield Example(sentences, row.target, row.mask, None, row.query, share(row.query or row.text), weight)
