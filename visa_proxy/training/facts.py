"""Training the fact analyzer: encoder layers and entailment head together (paper, section 3.2.2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from visa_proxy.encoder.adapted import digest
from visa_proxy.facts.head import Tensors, initial, logits
from visa_proxy.facts.lexical import features
from visa_proxy.facts.nli import EntailmentAnalyzer
from visa_proxy.optional import need
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.facts_data import Pair, read_conjnli, read_mnli, read_snli, sentences_of, synthetic_pairs
from visa_proxy.training.facts_report import cases, compare_all
from visa_proxy.training.facts_written import Claim, written_claims
from visa_proxy.training.loop import Curve, LoopRecipe, finished, fit
from visa_proxy.training.stats import auroc
from visa_proxy.training.tuned import TunedEncoder

PASS: Final = 0.6
"""The consistency that honest rewrites are calibrated to reach."""


class FactsRecipe(BaseModel):
    """How much of what goes into the fact analyzer's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: LoopRecipe
    groups: int = Field(1200, ge=1, le=1_000_000)
    """Sentences of neutral answers to build framings and perturbations around."""
    negatives: int = Field(4, ge=1, le=1_000_000)
    """Perturbations a sentence."""
    snli: int = Field(4000, ge=0, le=1_000_000)
    mnli: int = Field(3000, ge=0, le=1_000_000)
    conjnli: int = Field(500, ge=0, le=1_000_000)
    """Pairs of the public sets."""
    public_weight: float = Field(0.4, ge=0, le=1000)
    """Of a public pair in the loss; a pair of our own weighs 1."""
    written_repeat: int = Field(2, ge=0, le=1000)
    """How often an epoch sees the written rewrites."""
    written_weight: float = Field(1.0, ge=0, le=1000)
    validation: float = Field(0.06, gt=0, lt=0.5)
    """Share of the neutral answers kept for choosing the epoch and for calibration."""
    validation_groups: int = Field(100, ge=1, le=1_000_000)
    label_smoothing: float = Field(0.02, ge=0, lt=0.5)
    honest_pass: float = Field(0.97, gt=0, lt=1)
    """Calibration: so many honest rewrites of the validation answers reach a consistency of 0.6."""


@dataclass(frozen=True)
class Examples:
    """What training sees. Phrases and topics are those of the train split throughout."""

    train: list[Claim]
    validation: list[Claim]
    documents: list[list[str]]
    """The validation answers, as sentences, for calibration."""


def train(data: Path, recipe: FactsRecipe, out: Path, seed: int) -> Curve:
    """Fits, calibrates and writes `out/layers.safetensors` and `out/model.safetensors`; gives (loss, AUROC) of every epoch.

    A run that was killed goes on at its last whole epoch. Raises ConfigError for missing data.
    """
    examples_ = examples(data, recipe, seed)
    model = EntailmentModel(recipe, examples_.validation, seed)
    curve = fit(model, examples_.train, recipe.fit, out, seed, "facts", recipe.model_dump_json())
    found = model.scores(examples_.validation)
    factor = temperature(found, examples_.validation)
    model.save(out, factor, float(np.log(PASS / (1 - PASS))) / factor)
    model.save(out, factor, _honest_cut(out, examples_.documents, recipe, seed) / factor)
    finished(out)
    return curve


def examples(data: Path, recipe: FactsRecipe, seed: int) -> Examples:
    """Public pairs, framings and perturbations of neutral answers, and written rewrites."""
    documents = [d for d in sentences_of(read_dolly(data, "train")) if d]
    kept = frozenset(random.Random(seed).sample(range(len(documents)), int(len(documents) * recipe.validation)))
    held = [documents[i] for i in sorted(kept)]
    public = [
        *_draw(read_snli(data, "dev"), recipe.snli, seed),
        *_draw(read_mnli(data, "train"), recipe.mnli, seed),
        *_draw(read_conjnli(data), recipe.conjnli, seed),
    ]
    own = list(synthetic_pairs(documents, "train", seed, recipe.groups, recipe.negatives, without=kept))
    checks = list(synthetic_pairs(held, "train", seed + 1, recipe.validation_groups, 6))
    written = written_claims("train", recipe.written_weight) * recipe.written_repeat
    train = [*written, *(_claim(p, 1.0) for p in own), *(_claim(p, recipe.public_weight) for p in public)]
    return Examples(train, [*written_claims("validation", 1.0), *(_claim(p, 1.0) for p in checks)], held)


def _draw(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    return random.Random(seed).sample(pairs, min(count, len(pairs)))


def _claim(pair: Pair, weight: float) -> Claim:
    return Claim((((pair.premise, pair.hypothesis),),), pair.label, weight, pair.kind)


class EntailmentModel:
    """Implements `loop.Model` for `Claim`s: the best premise of a sentence counts, and the weakest sentence of a text."""

    def __init__(self, recipe: FactsRecipe, validation: Sequence[Claim], seed: int) -> None:
        """Raises ConfigError when the encoder cannot be read."""
        self._torch = need("torch", extra="local")
        self._torch.manual_seed(seed)
        self._encoder = TunedEncoder(recipe.fit.layers, recipe.fit.dropout)
        self._head: Tensors = initial(self._torch, seed)
        self._recipe, self._validation = recipe, validation
        self._lexical: dict[tuple[tuple[str, ...], str], NDArray[np.float32]] = {}

    def groups(self) -> Mapping[str, dict[str, Any]]:
        return {"layers": self._encoder.weights(), "head": self._head}

    def score(self) -> float:
        """AUROC on the validation claims."""
        return auroc(self.scores(self._validation), np.array([claim.label == 1 for claim in self._validation]))

    def loss(self, batch: Sequence[Claim], order: np.random.Generator) -> Any:
        torch, smooth = self._torch, self._recipe.label_smoothing
        self._encoder.train(True)
        found = self._logits(batch, self._recipe.fit.dropout)
        labels = torch.tensor([claim.label * (1 - 2 * smooth) + smooth for claim in batch])
        weight = torch.tensor([claim.weight for claim in batch])
        return torch.nn.functional.binary_cross_entropy_with_logits(found, labels, weight=weight)

    def scores(self, claims: Sequence[Claim]) -> NDArray[np.float64]:
        """Log-odds of every claim, in order."""
        self._encoder.train(False)
        with self._torch.inference_mode():
            found = [self._logits(claims[start : start + 64], 0.0).numpy() for start in range(0, len(claims), 64)]
        return np.concatenate(found).astype(np.float64)

    def save(self, folder: Path, factor: float, cut: float) -> None:
        """Writes both files, the last layer scaled and shifted so that the log-odds `cut` come out as P = 0.6."""
        self._encoder.save(folder)
        shift = float(np.log(PASS / (1 - PASS))) - factor * cut
        tensors = {name: tensor.detach().clone() for name, tensor in self._head.items()}
        tensors["score.weight"] = tensors["score.weight"] * factor
        tensors["score.bias"] = tensors["score.bias"] * factor + shift
        file = folder / "model.safetensors"
        need("safetensors.torch", extra="local").save_file(tensors, str(file), metadata={"layers": digest(folder)})
        file.chmod(0o644)

    def _logits(self, claims: Sequence[Claim], dropout: float) -> Any:
        """(claims,) log-odds."""
        torch, pad = self._torch, self._torch.nn.utils.rnn.pad_sequence
        pairs = [pair for claim in claims for sentence in claim.sentences for pair in sentence]
        texts = list(dict.fromkeys(text for premise, hypothesis in pairs for text in (*premise, hypothesis)))
        states, _ = self._encoder.encode(texts)
        row = {text: states[i] for i, text in enumerate(texts)}
        sides = []
        for side in (
            [torch.cat([row[t] for t in premise]) for premise, _ in pairs],
            [row[hypothesis] for _, hypothesis in pairs],
        ):
            mask = pad([torch.ones(len(tokens)) for tokens in side], batch_first=True)
            sides.append((pad(side, batch_first=True), mask))
        lexical = torch.from_numpy(np.stack([self._features(*pair) for pair in pairs]))
        each = logits(torch, self._head, sides[0], sides[1], lexical, dropout)
        found, place = [], 0
        for claim in claims:
            best = []
            for sentence in claim.sentences:
                best.append(each[place : place + len(sentence)].max())
                place += len(sentence)
            found.append(torch.stack(best).min())
        return torch.stack(found)

    def _features(self, premise: tuple[str, ...], hypothesis: str) -> NDArray[np.float32]:
        key = premise, hypothesis
        if key not in self._lexical:
            self._lexical[key] = features(" ".join(premise), hypothesis)
        return self._lexical[key]


def temperature(found: NDArray[np.float64], claims: Sequence[Claim]) -> float:
    """The factor on the log-odds that makes the validation loss least."""
    sign = np.array([1 if claim.label else -1 for claim in claims])
    return float(min(np.geomspace(0.2, 3.0, 60), key=lambda factor: float(np.logaddexp(0, -sign * found * factor).mean())))


def _honest_cut(out: Path, documents: Sequence[Sequence[str]], recipe: FactsRecipe, seed: int) -> float:
    """The log-odds that `recipe.honest_pass` of honest rewrites reach: weakest sentence, both ways."""
    reports = asyncio.run(compare_all(EntailmentAnalyzer(out), cases(documents, "train", seed, perturbed=False)))
    weakest = np.clip([min(report.forward, report.backward) for report in reports], 1e-7, 1 - 1e-7)
    return float(np.quantile(np.log(weakest / (1 - weakest)), 1 - recipe.honest_pass))
