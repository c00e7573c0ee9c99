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

from visa_proxy.encoder.head import WEIGHTS
from visa_proxy.optional import need
from visa_proxy.training import jsonl
from visa_proxy.training.compose import label
from visa_proxy.training.corpus import Split, read_dolly
from visa_proxy.training.detector import tricky
from visa_proxy.training.heads import Array, Example
from visa_proxy.training.labelled import Part, part_of, read_personas, share
from visa_proxy.training.loop import Curve, finished
from visa_proxy.training.phrases import instructions, phrases
from visa_proxy.training.summed import SummedModel, SummedRecipe, mean_cosine
from visa_proxy.translator.encoder import OUTPUTS
from visa_proxy.values import load_space

OBLIQUE_HELDOUT: Final = 0.25
FOREIGN: Final = "foreign"


class TranslatorRecipe(BaseModel):
    """How much of what goes into the translator's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: SummedRecipe
    templates: int = Field(1500, ge=0, le=1_000_000)
    """Filled instruction templates."""
    pairs: int = Field(1500, ge=0, le=1_000_000)
    """Two or three requests joined."""
    off_topic: int = Field(1000, ge=0, le=1_000_000)
    """Questions, sentences and noise that ask for no value."""
    spoken: int = Field(1000, ge=0, le=1_000_000)
    """Value phrases and persona statements in the place of a request: they widen the words a value is known by."""
    repeat: int = Field(3, ge=1, le=1000)
    """How often a hand-written instruction counts against a filled template."""
    confidence_weight: float = Field(0.1, ge=0, le=1000)


@dataclass(frozen=True)
class Request:
    """One instruction and its offset."""

    text: str
    offset: Array
    """(10,)"""
    kind: str
    asker: str = ""
    """Who asks, where that is known: instructions of one asker are not independent."""


def train(data: Path, recipe: TranslatorRecipe, out: Path, seed: int) -> Curve:
    """Fits encoder and head together and writes both into `out`; gives (loss, validation score) of every epoch.

    A run that was killed goes on at its last whole epoch. Raises ConfigError for missing data.
    """
    held = [example(request) for request in written("validation")]
    model = SummedModel(recipe.fit, OUTPUTS, TranslationError(recipe.confidence_weight), seed)
    size = len(load_space("schwartz"))
    curve = model.fit(
        training_examples(data, recipe, seed),
        held,
        lambda found: mean_cosine(found, held, size),
        out,
        "translator",
        recipe.model_dump_json(),
    )
    model.save(out, WEIGHTS)
    finished(out)
    return curve


@dataclass(frozen=True)
class TranslationError:
    """Squared error of confidence · direction, plus the cross-entropy of the confidence and of the language."""

    confidence_weight: float

    def __call__(self, sums: Any, targets: Any, masks: Any, weights: Any) -> Any:
        functional = need("torch.nn.functional", extra="local")
        values, flags = sums[:, :-2], sums[:, -2:]
        direction = values.clamp(-1, 1)
        direction = direction + 0.1 * (values - direction)
        error = (direction * flags[:, :1].sigmoid() - targets[:, :-2]) ** 2
        sure = functional.binary_cross_entropy_with_logits(flags, targets[:, -2:], reduction="none")
        return ((error.sum(1) + self.confidence_weight * sure.sum(1)) * weights).mean()


def training_examples(data: Path, recipe: TranslatorRecipe, seed: int) -> list[Example]:
    """Everything the head learns from; nothing of a held-out part."""
    order = np.random.default_rng(seed)
    own = [*hand_written("train"), *written("train")]
    filled = [*templates("train", recipe.templates, order), *spoken(data, recipe.spoken, order)]
    requests = [*filled, *off_topic(data, "train", recipe.off_topic, order), *own * recipe.repeat]
    pool = [*(r for r in own if r.offset.any()), *filled]
    return [example(request) for request in [*requests, *(joined(pool, order) for _ in range(recipe.pairs))]]


def hand_written(split: Split) -> Iterator[Request]:
    """The instructions beside the phrases, and those of `data/instructions.yaml`."""
    for entry in instructions(split):
        yield Request(entry.text, label({entry.value: entry.level}), "instruction")
    for row in _data("instructions")["oblique"]:
        if split in ("all", _side(row["text"])):
            yield Request(row["text"], label(row["offset"]), "oblique")
    for text in _data("instructions")["neutral"]:
        if split in ("all", _side(text)):
            yield Request(text, label(), "neutral")


def written(part: Part) -> list[Request]:
    """The instructions of `data/instructions/*.jsonl`; whole topics (who asks) are held out."""
    return [
        Request(row["instruction"], label(row["offset"]), row["kind"], row["topic"])
        for row in jsonl.records(*jsonl.bundled("instructions"))
        if part_of(f"topic {row['topic']}") == part
    ]


def spoken(data: Path, count: int, order: np.random.Generator) -> list[Request]:
    """What the reader is to be told, as a request: training phrases, and persona statements whose label leaves no value open."""
    frames = _data("lexicon")["spoken"]
    pool = [(phrase.text.strip(" ,.;"), label({phrase.value: phrase.level})) for phrase in phrases("train")]
    pool = [entry for entry in pool if len(entry[0].split()) > 2]
    pool += [(row.text.strip(" ."), row.target) for row in read_personas(data) if row.part == "train"]
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
        offset = label({value: 0.0 if plain else float(level)})
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
    nothing = label()
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


def example(request: Request) -> Example:
    """What the head is to say of it."""
    flags = [float(request.offset.any()), float(request.kind == FOREIGN)]
    target = np.append(request.offset, flags).astype(np.float32)
    return Example((" ".join(request.text.split()),), target, np.ones_like(target))


@functools.cache
def _data(name: str) -> Any:
    source = importlib.resources.files("visa_proxy.training") / "data" / f"{name}.yaml"
    return yaml.safe_load(source.read_text(encoding="utf-8"))
