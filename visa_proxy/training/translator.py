"""Training Φ (paper, section 3.1, Eq. 2): what people ask for, and the offset it means."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from visa_proxy.encoder.head import WEIGHTS
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.optional import need
from visa_proxy.training.compose import one_hot
from visa_proxy.training.corpus import Split, read_dolly
from visa_proxy.training.detector import tricky
from visa_proxy.training.heads import Array, Example, FitRecipe, Fitter, encode_all, save_head
from visa_proxy.training.labelled import read_personas, share
from visa_proxy.training.phrases import instructions, phrases
from visa_proxy.translator.clauses import split_clauses
from visa_proxy.translator.encoder import CONFIDENCE
from visa_proxy.values import load_space

OBLIQUE_HELDOUT: Final = 0.25


class TranslatorRecipe(BaseModel):
    """How much of what goes into the translator's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitRecipe
    templates: int = Field(2500, ge=0)
    """Filled instruction templates."""
    pairs: int = Field(2500, ge=0)
    """Two or three requests joined."""
    off_topic: int = Field(1200, ge=0)
    """Questions, sentences and noise that ask for no value."""
    spoken: int = Field(2000, ge=0)
    """Value phrases and persona statements in the place of a request: they widen the words a value is known by."""
    repeat: int = Field(3, ge=1)
    """How often a hand-written instruction counts against a filled template."""
    confidence_weight: float = Field(0.1, ge=0)


@dataclass(frozen=True)
class Request:
    """One instruction and its offset."""

    text: str
    offset: Array
    """(10,)"""
    kind: str


def train(encoder: SentenceEncoder, data: Path, recipe: TranslatorRecipe, out: Path, seed: int, cache: Path | None) -> None:
    """Fits the head and writes `out/head.safetensors`. Raises ConfigError for missing data."""
    outputs = (*load_space("schwartz").names, CONFIDENCE)
    examples = training_examples(data, recipe, seed)
    with Progress() as progress:
        encodings = encode_all(encoder, (clause for e in examples for clause in e.clauses), progress, cache)
        fitter = Fitter(encodings, recipe.fit, outputs, _Error(recipe.confidence_weight), progress)
        tensors = fitter.fit(examples, seed)
    save_head(out / WEIGHTS, tensors, outputs)


@dataclass(frozen=True)
class _Error:
    """Squared error of confidence · direction, plus the cross-entropy of the confidence."""

    confidence_weight: float

    def __call__(self, sums: Any, targets: Any, masks: Any, weights: Any) -> Any:
        functional = need("torch.nn.functional", extra="local")
        direction = sums[:, :-1].clamp(-1, 1)
        direction = direction + 0.1 * (sums[:, :-1] - direction)
        error = (direction * sums[:, -1:].sigmoid() - targets[:, :-1]) ** 2
        sure = functional.binary_cross_entropy_with_logits(sums[:, -1], targets[:, -1], reduction="none")
        return ((error.sum(1) + self.confidence_weight * sure) * weights).mean()


def training_examples(data: Path, recipe: TranslatorRecipe, seed: int) -> list[Example]:
    """Everything the head learns from; nothing of a held-out part."""
    order = np.random.default_rng(seed)
    written = list(hand_written("train"))
    filled = [*templates("train", recipe.templates, order), *spoken(data, recipe.spoken, order)]
    requests = [*filled, *off_topic(data, "train", recipe.off_topic, order), *written * recipe.repeat]
    pool = [*written, *written, *filled]
    return [_example(request) for request in [*requests, *(joined(pool, order) for _ in range(recipe.pairs))]]


def hand_written(split: Split) -> Iterator[Request]:
    """The instructions beside the phrases, and those of `data/instructions.yaml`."""
    for entry in instructions(split):
        yield Request(entry.text, one_hot(entry.value, entry.level), "instruction")
    for row in _data("instructions")["oblique"]:
        if split in ("all", _side(row["text"])):
            offset = sum((one_hot(name, level) for name, level in row["offset"].items()), one_hot("power", 0.0))
            yield Request(row["text"], offset, "oblique")
    for text in _data("instructions")["neutral"]:
        if split in ("all", _side(text)):
            yield Request(text, one_hot("power", 0.0), "neutral")


def spoken(data: Path, count: int, order: np.random.Generator) -> list[Request]:
    """What the reader is to be told, as a request: training phrases, and persona statements whose label leaves no value open."""
    frames = _data("lexicon")["spoken"]
    pool = [(phrase.text.strip(" ,.;"), one_hot(phrase.value, phrase.level)) for phrase in phrases("train")]
    pool = [entry for entry in pool if len(entry[0].split()) > 2]
    pool += [(row.text.strip(" ."), row.target) for row in read_personas(data) if not row.heldout]
    chosen = [pool[i] for i in order.permutation(len(pool))[:count]]
    return [Request(frames[order.integers(len(frames))].replace("{w}", text), offset, "spoken") for text, offset in chosen]


def templates(split: Split, count: int, order: np.random.Generator) -> list[Request]:
    """Templates filled with the words of `data/lexicon.yaml`; held out are the last two words of each list."""
    lexicon = _data("lexicon")
    made: list[Request] = []
    for _ in range(count):
        plain = order.random() < 0.08
        value = load_space("schwartz").names[order.integers(10)]
        form = ("adjectives", "nouns")[order.integers(2)]
        words = lexicon["neutral"][form] if plain else lexicon["words"][value][form]
        words = words[-2:] if split == "heldout" else words[:-2]
        level = sorted(lexicon["adjective_templates"])[order.integers(6)]
        choices = lexicon[f"{form[:-1]}_templates"][level]
        text = choices[order.integers(len(choices))].replace("{w}", words[order.integers(len(words))])
        offset = one_hot(value, 0.0 if plain else float(level))
        made.append(Request(text, offset, "neutral" if plain else "template"))
    return made


def joined(pool: Sequence[Request], order: np.random.Generator) -> Request:
    """Two requests in one, sometimes three; offsets add up."""
    joiners = _data("lexicon")["joiners"]
    result = pool[int(order.integers(len(pool)))]
    for _ in range(1 + int(order.random() < 0.2)):
        other = pool[int(order.integers(len(pool)))]
        joiner = joiners[order.integers(len(joiners))]
        # Before a joiner that starts a sentence of its own, the first request keeps its full stop.
        own = joiner.startswith("{a} ") and not joiner[4].islower()
        head = result.text if own else result.text.rstrip(".")
        tail = other.text[0].lower() + other.text[1:] if not joiner.startswith("{a} {b}") else other.text
        text = joiner.replace("{a}", head).replace("{b}", tail)
        result = Request(text, np.clip(result.offset + other.offset, -1, 1), "joined")
    return result


def off_topic(data: Path, split: Split, count: int, order: np.random.Generator) -> Iterator[Request]:
    """Questions and sentences of dolly, tricky sentences, shuffled words, keyboard noise: offset 0."""
    answers = read_dolly(data, split)
    nothing = one_hot("power", 0.0)
    for sentence in tricky(split):
        yield Request(sentence, nothing, "tricky")
    for number in range(count):
        answer = answers[order.integers(len(answers))]
        words = answer.text.split()
        if number % 6 == 0:
            text = " ".join(order.permutation(words)[: 3 + order.integers(10)])
        elif number % 6 == 1:
            letters = order.choice(list("abcdefghijklmnopqrstuvwxyz     0123"), 5 + order.integers(25))
            text = "".join(letters).strip() or "x"
        elif number % 6 == 2:
            text = " ".join(words[:20])
        else:
            text = answer.instruction
        yield Request(" ".join(text.split()), nothing, "off-topic")


def _side(text: str) -> Split:
    return "heldout" if share(text) < OBLIQUE_HELDOUT else "train"


def _example(request: Request) -> Example:
    sure = np.float32(request.offset.any())
    target = np.append(request.offset, sure).astype(np.float32)
    return Example(tuple(split_clauses(request.text)) or (request.text,), target, np.ones_like(target))


@functools.cache
def _data(name: str) -> Any:
    source = importlib.resources.files("visa_proxy.training") / "data" / f"{name}.yaml"
    return yaml.safe_load(source.read_text(encoding="utf-8"))
