"""Trains the fact analyzer's entailment head on frozen token states (paper, section 3.2.2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError
from visa_proxy.facts.head import Tensors, initial, logits, pad
from visa_proxy.facts.nli import EntailmentAnalyzer, read_weights
from visa_proxy.optional import need
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.facts_data import Pair, read_conjnli, read_mnli, read_snli, sentences_of, synthetic_pairs
from visa_proxy.training.facts_report import cases, compare_all
from visa_proxy.training.token_store import TokenStore

_PUBLIC = frozenset({"snli", "mnli", "conjnli"})


@dataclass(frozen=True)
class Recipe:
    """`recipes/facts.yaml`; each field is explained there."""

    groups: int
    negatives: int
    snli: int
    mnli: int
    conjnli: int
    public_weight: float
    validation: float
    validation_groups: int
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    honest_pass: float


def read_recipe(path: Path) -> Recipe:
    """Raises ConfigError for a file that is not exactly a recipe."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot read the recipe: {error}"]) from error
    names = {field.name for field in fields(Recipe)}
    if not isinstance(data, dict) or set(data) != names:
        raise ConfigError([f"{path}: a facts recipe has exactly the keys {', '.join(sorted(names))}"])
    wrong = [name for name, value in data.items() if not isinstance(value, int | float) or value < 0]
    if wrong:
        raise ConfigError([f"{path}: {name}: must be a number of at least 0" for name in wrong])
    return Recipe(**data)


@dataclass(frozen=True)
class Examples:
    """What training sees. Phrases and topics are those of the train split throughout."""

    train: list[Pair]
    validation: list[Pair]
    documents: list[list[str]]
    """The validation documents, as sentences, for calibration."""


def examples(data: Path, recipe: Recipe, seed: int) -> Examples:
    """Public pairs plus framings and perturbations of training documents."""
    documents = [d for d in sentences_of(read_dolly(data, "train")) if d]
    kept = frozenset(random.Random(seed).sample(range(len(documents)), int(len(documents) * recipe.validation)))
    held = [documents[i] for i in sorted(kept)]
    public = [
        *_draw(read_snli(data, "dev"), recipe.snli, seed),
        *_draw(read_mnli(data, "train"), recipe.mnli, seed),
        *_draw(read_conjnli(data), recipe.conjnli, seed),
    ]
    own = synthetic_pairs(documents, "train", seed, recipe.groups, recipe.negatives, without=kept)
    validation = synthetic_pairs(held, "train", seed + 1, recipe.validation_groups, 8)
    return Examples([*own, *public], list(validation), held)


def _draw(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    return random.Random(seed).sample(pairs, min(count, len(pairs)))


def sentences_in(pairs: Sequence[Pair]) -> Iterator[str]:
    """Every sentence of `pairs`, with repetitions."""
    for pair in pairs:
        yield from pair.premise
        yield pair.hypothesis


def scores(torch: Any, weights: Tensors, pairs: Sequence[Pair], store: TokenStore, batch: int = 128) -> NDArray[np.float64]:
    """Log-odds of every pair, in order."""
    result = np.zeros(len(pairs))
    order = sorted(range(len(pairs)), key=lambda i: len(" ".join(pairs[i].premise)) + len(pairs[i].hypothesis))
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chunk = order[start : start + batch]
            result[chunk] = _logits(torch, weights, [pairs[i] for i in chunk], store).numpy()
    return result


def _logits(torch: Any, weights: Tensors, pairs: Sequence[Pair], store: TokenStore, dropout: float = 0.0) -> Any:
    premise = pad(torch, [store.window(pair.premise) for pair in pairs])
    hypothesis = pad(torch, [store.window((pair.hypothesis,)) for pair in pairs])
    lexical = torch.from_numpy(np.stack([store.lexical(pair.premise, pair.hypothesis) for pair in pairs]))
    return logits(torch, weights, premise, hypothesis, lexical, dropout)


def fit(pairs: Examples, store: TokenStore, recipe: Recipe, seed: int, out: Path, start: Path | None = None) -> Tensors:
    """Train with AdamW, one-cycle learning rate; the weights of the epoch with the lowest validation loss.

    The best so far are kept in `out`, uncalibrated, in case the run is cut off.
    """
    torch = need("torch", extra="local")
    rng = random.Random(seed)
    torch.manual_seed(seed)
    weights = {k: t.requires_grad_() for k, t in read_weights(start).items()} if start else initial(torch, seed)
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = len(_batches(pairs.train, recipe.batch, rng)) * recipe.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.15)
    best, kept = float("inf"), weights
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training the entailment head", total=steps)
        for epoch in range(recipe.epochs):
            for batch in _batches(pairs.train, recipe.batch, rng):
                loss = _loss(torch, weights, [pairs.train[i] for i in batch], store, recipe)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
                optimizer.step()
                schedule.step()
                progress.advance(task)
            validation = _cross_entropy(scores(torch, weights, pairs.validation, store), pairs.validation)
            progress.console.print(f"epoch {epoch + 1}: validation loss {validation:.4f}")
            if validation < best:
                best, kept = validation, {name: tensor.detach().clone() for name, tensor in weights.items()}
                _save(kept, out)
    return kept


def _batches(pairs: Sequence[Pair], size: int, rng: random.Random) -> list[list[int]]:
    """Shuffled batches of about equal length, so that little is padding."""
    order = sorted(
        range(len(pairs)), key=lambda i: len(" ".join(pairs[i].premise)) + len(pairs[i].hypothesis) + rng.uniform(0, 30)
    )
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def _loss(torch: Any, weights: Tensors, batch: Sequence[Pair], store: TokenStore, recipe: Recipe) -> Any:
    found = _logits(torch, weights, batch, store, recipe.dropout)
    smooth = recipe.label_smoothing
    labels = torch.tensor([pair.label * (1 - 2 * smooth) + smooth for pair in batch])
    importance = torch.tensor([recipe.public_weight if pair.kind in _PUBLIC else 1.0 for pair in batch])
    return torch.nn.functional.binary_cross_entropy_with_logits(found, labels, weight=importance)


def _cross_entropy(found: NDArray[np.float64], pairs: Sequence[Pair]) -> float:
    sign = np.array([1 if pair.label else -1 for pair in pairs])
    return float(np.logaddexp(0, -sign * found).mean())


def temperature(found: NDArray[np.float64], pairs: Sequence[Pair]) -> float:
    """The factor on the log-odds that makes the validation loss least."""
    factors = np.geomspace(0.2, 3.0, 60)
    return float(min(factors, key=lambda factor: _cross_entropy(found * factor, pairs)))


def calibrated(weights: Tensors, factor: float, cut: float) -> Tensors:
    """Scale and shift the last layer so that the uncalibrated log-odds `cut` come out as P = 0.6."""
    shift = float(np.log(0.6 / 0.4)) - factor * cut
    return {
        **weights,
        "score.weight": weights["score.weight"] * factor,
        "score.bias": weights["score.bias"] * factor + shift,
    }


def train(
    encoder: SentenceEncoder,
    data: Path,
    recipe: Recipe,
    out: Path,
    seed: int,
    cache: Path | None = None,
    start: Path | None = None,
) -> None:
    """Fit, calibrate and write `out/model.safetensors`. Raises ConfigError when the data is missing."""
    torch = need("torch", extra="local")
    pairs = examples(data, recipe, seed)
    out.mkdir(parents=True, exist_ok=True)
    store = TokenStore(encoder)
    if cache:
        store.load(cache)
    store.add(sentences_in([*pairs.train, *pairs.validation]))
    if cache:
        store.save(cache)
    weights = fit(pairs, store, recipe, seed, out, start)
    factor = temperature(scores(torch, weights, pairs.validation, store), pairs.validation)
    _save(calibrated(weights, factor, float(np.log(0.6 / 0.4)) / factor), out)
    cut = _honest_cut(encoder, out, pairs.documents, recipe, seed) / factor
    _save(calibrated(weights, factor, cut), out)


def _honest_cut(encoder: SentenceEncoder, out: Path, documents: Sequence[Sequence[str]], recipe: Recipe, seed: int) -> float:
    """The log-odds that `recipe.honest_pass` of honest rewrites reach: weakest sentence, both ways."""
    analyzer = EntailmentAnalyzer(encoder, out)
    honest = cases(documents, "train", seed, perturbed=False)
    reports = asyncio.run(compare_all(analyzer, honest))
    weakest = np.clip([min(report.forward, report.backward) for report in reports], 1e-7, 1 - 1e-7)
    return float(np.quantile(np.log(weakest / (1 - weakest)), 1 - recipe.honest_pass))


def _save(weights: Tensors, out: Path) -> None:
    save_file: Any = need("safetensors.torch", extra="local").save_file
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, str(out / "model.safetensors"))


def new_encoder() -> SentenceEncoder:
    """One thread: training shares the machine."""
    return SentenceEncoder(threads=1, cache=4096)
