"""Training Ψ (paper, section 3.1, Eq. 1): annotated answers, neutral answers with value phrases in them, and answers labelled by others."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from visa_proxy.detector.encoder import HALF_STEP, outputs, sure
from visa_proxy.detector.weights import SCHWARTZ, file_name
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.policy.problems import refusal
from visa_proxy.training.annotated import Annotated, bundled, parts
from visa_proxy.training.compose import dress, label, neutral_frame
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.heads import Array, Example
from visa_proxy.training.labelled import Labelled, read_fulcra, read_personas
from visa_proxy.training.loop import Curve, finished
from visa_proxy.training.phrases import Phrase, Split, phrases
from visa_proxy.training.summed import SummedModel, SummedRecipe, mean_cosine
from visa_proxy.training.touche import read_touche
from visa_proxy.values import load_space

FRAMES: Final = (
    "You can", "You should", "Try to", "It helps to", "It is a good idea to", "Start by", "Consider", "Make sure to",
    "One option is to", "It is important to", "The best way is to", "This helps you",
)  # fmt: skip
MAX_SENTENCES: Final = 12


class DetectorRecipe(BaseModel):
    """How much of what goes into the detector's training. A weight is what an answer's error counts, 0 leaves the source out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: SummedRecipe
    repeat: int = Field(2, ge=1, le=1000)
    """How often an epoch sees the annotated answers."""
    windows: int = Field(1500, ge=0, le=1_000_000)
    """Neutral answers that get phrases."""
    phrases_per_window: tuple[float, ...] = (0.2, 0.4, 0.3, 0.1)
    """Probability of 0, 1, 2, … phrases in an answer."""
    phrase_weight: float = Field(0.5, ge=0, le=1000)
    tricky_weight: float = Field(1.0, ge=0, le=1000)
    fulcra_weight: float = Field(0.5, ge=0, le=1000)
    persona_weight: float = Field(0.25, ge=0, le=1000)
    touche: int = Field(2500, ge=0, le=1_000_000)
    """Arguments of Touché."""
    touche_weight: float = Field(0.15, ge=0, le=1000)
    presence: float = Field(0.6, gt=0, le=1)
    """The level that stands for "resorts to this value" in Touché's labels, which know no sign and no size."""
    emphasis: float = Field(2.0, ge=0, le=1000)
    """The error of a component at level ±1 counts 1 + this much: nine in ten components are 0, and would drown it."""
    spread_weight: float = Field(0.05, ge=0, le=1000)
    """Of learning how far off the values are likely to be."""

    @field_validator("phrases_per_window")
    @classmethod
    def _shares(cls, found: tuple[float, ...]) -> tuple[float, ...]:
        total = math.fsum(found)
        if not 1 <= len(found) <= 8 or not all(share >= 0 for share in found) or not abs(total - 1) < 1.001e-6:
            raise refusal(f"found {len(found)} numbers with the sum {total:g}, allowed: 1 to 8 numbers ≥ 0 that sum to 1")
        return tuple(share / total for share in found)  # numpy takes no sum that is off by more than 1.5e-8


@dataclass(frozen=True)
class ClippedError:
    """Squared error of the clipped sum; beyond ±1 a tenth of the slope is left, so an overshoot comes back.

    The second half of the outputs learns the size of the error (a normal distribution's), and leaves the first half alone.
    """

    emphasis: float
    spread_weight: float

    def __call__(self, sums: Any, targets: Any, masks: Any, weights: Any) -> Any:
        size = targets.shape[1]
        values, spread = sums[:, :size], sums[:, size:]
        clipped = values.clamp(-1, 1)
        error = (clipped + 0.1 * (values - clipped) - targets) ** 2 * (1 + self.emphasis * targets.abs())
        off = (clipped - targets).detach() ** 2
        deviation = spread.exp().clamp(0.02, 2.0)
        doubt = deviation.log() + off / (2 * deviation**2)
        return (((error + self.spread_weight * doubt) * masks).sum(1) * weights).mean()


def train(data: Path, recipe: DetectorRecipe, out: Path, seed: int) -> Curve:
    """Fits encoder and head together and writes both into `out`; gives (loss, validation score) of every epoch.

    A run that was killed goes on at its last whole epoch. Raises ConfigError for missing data.
    """
    space = load_space(SCHWARTZ)
    examples = training_examples(data, recipe, seed)
    held = validation_examples(data)
    loss = ClippedError(recipe.emphasis, recipe.spread_weight)
    # How far off an answer is likely to be is the sum over its sentences; of one sentence alone it is not asked.
    model = SummedModel(recipe.fit, outputs(space), loss, seed, part_loss=replace(loss, spread_weight=0.0))
    curve = model.fit(
        examples, held, lambda found: mean_cosine(found, held, len(space)), out, "detector", recipe.model_dump_json()
    )
    model.save(out, file_name(space), spread=f"{calibration(model.outputs(held), held):.4f}")
    finished(out)
    return curve


def validation_examples(data: Path) -> list[Example]:
    """Annotated answers on validation topics, and FULCRA's validation queries."""
    rows = parts(bundled(load_space(SCHWARTZ)))["validation"]
    own = [Example(tuple(split_sentences(row.answer)), row.values, np.ones_like(row.values), row.query) for row in rows]
    return own + [example for row in read_fulcra(data) if row.part == "validation" for example in whole(row)]


def calibration(found: Array, examples: Sequence[Example]) -> float:
    """What the expected errors are to be multiplied with, so that the stated confidence is right on average."""
    size = len(examples[0].target)
    values, spread = found[:, :size].clip(-1, 1), np.exp(found[:, size:].clip(-4, 1))
    right = float((np.abs(np.stack([e.target for e in examples]) - values) <= HALF_STEP).mean())
    low, high = 0.05, 20.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        stated = float(np.mean([sure(float(s) * middle) for s in spread.ravel()]))
        low, high = (middle, high) if stated > right else (low, middle)
    return middle


def annotated(rows: Sequence[Annotated], repeat: int) -> Iterator[Example]:
    """Whole answers, with the label of each sentence where it is known."""
    for row in rows:
        sentences = tuple(split_sentences(row.answer))
        targets, masks = _carried(row, len(sentences))
        for _ in range(repeat):
            yield Example(sentences, row.values, np.ones_like(row.values), row.query, 1.0, targets, masks)


def training_examples(data: Path, recipe: DetectorRecipe, seed: int) -> list[Example]:
    """Everything the detector learns from; nothing of a held-out part."""
    order = np.random.default_rng(seed)
    space = load_space(SCHWARTZ)
    pool = phrases("train")
    examples = list(annotated(parts(bundled(space))["train"], recipe.repeat))
    if recipe.phrase_weight:
        examples += dressed(data, recipe, pool, order)
        examples += [_sentence(p.text.strip(" ,"), label({p.value: p.level}), weight=recipe.phrase_weight) for p in pool]
    examples += [_sentence(sentence, label(), weight=recipe.tricky_weight) for sentence in tricky("train")]
    for row in read_fulcra(data):
        if row.part == "train":
            examples += whole(row, recipe.fulcra_weight)
    for row in read_personas(data):
        if row.part == "train":
            examples += whole(row, recipe.persona_weight)
    arguments = [row for row in read_touche(data, "training") if row.part == "train"]
    for row in (arguments[i] for i in order.permutation(len(arguments))[: recipe.touche]):
        examples += whole(row, recipe.touche_weight, recipe.presence)
    return examples


def dressed(data: Path, recipe: DetectorRecipe, pool: Sequence[Phrase], order: np.random.Generator) -> list[Example]:
    """Neutral answers, some with phrases in them."""
    answers = read_dolly(data, "train")
    queue = _endless(pool, order)
    examples: list[Example] = []
    for position in order.permutation(len(answers))[: recipe.windows]:
        answer = answers[position]
        sentences = [_framed(sentence, order) for sentence in split_sentences(answer.text)]
        count = int(order.choice(len(recipe.phrases_per_window), p=recipe.phrases_per_window))
        texts, labels = dress(sentences, [next(queue) for _ in range(count)], order)
        target = np.clip(labels.sum(0), -1, 1).astype(np.float32)
        examples.append(Example(tuple(texts), target, np.ones_like(target), answer.instruction, recipe.phrase_weight))
    return examples


def tricky(split: Split) -> list[str]:
    """Sentences with the words of a value and no stand on it; every fifth is held out."""
    source = importlib.resources.files("visa_proxy.training") / "data" / "tricky.yaml"
    sentences: list[str] = yaml.safe_load(source.read_text(encoding="utf-8"))["neutral"]
    return [sentence for i, sentence in enumerate(sentences) if (i % 5 == 4) == (split == "heldout")]


def _carried(row: Annotated, count: int) -> tuple[Array, Array]:
    """A value that one sentence carries alone is that sentence's; how several share one is not known."""
    targets = np.zeros((count, len(row.values)), np.float32)
    masks = np.ones_like(targets)
    for name, places in row.carriers.items():
        index = row.index[name]
        targets[list(places), index] = row.values[index]
        masks[list(places), index] = float(len(places) == 1)
    unknown = [i for i, name in enumerate(row.space.names) if row.values[i] and name not in row.carriers]
    masks[:, unknown] = 0.0
    return targets, masks


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
    return Example((text,), target.astype(np.float32), np.ones(len(target), np.float32), query, weight)


def whole(row: Labelled, weight: float = 1.0, scale: float = 1.0) -> Iterator[Example]:
    """A labelled answer as an example, its levels times `scale`; none for a text without sentences."""
    sentences = tuple(split_sentences(row.text)[:MAX_SENTENCES])
    if sentences and weight:
        yield Example(sentences, row.target * np.float32(scale), row.mask, row.query, weight)
