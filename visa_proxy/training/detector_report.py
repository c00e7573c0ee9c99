"""Held-out figures of a detector, beside simple baselines: for its MODEL_CARD and for docs/results."""

from __future__ import annotations

import asyncio
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from visa_proxy.detector.encoder import EncoderDetector
from visa_proxy.detector.weights import load_encoder_detector
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.annotated import bundled, parts
from visa_proxy.training.baselines import Baseline, Lexicon, MeanVector, Ridge
from visa_proxy.training.compose import dress, label
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.detector import tricky
from visa_proxy.training.heads import Array
from visa_proxy.training.labelled import Labelled, read_fulcra
from visa_proxy.training.phrases import phrases
from visa_proxy.training.stats import cosine, interval, mean_interval, pearson
from visa_proxy.training.touche import read_touche
from visa_proxy.values import load_space

DETECTOR: Final = "visa-proxy"
OWN: Final = "annotated answers, unseen topics"
FULCRA: Final = "FULCRA, unseen queries"
DRESSED: Final = "unseen phrases in unseen neutral answers"
QUIET: Final = ("neutral answers", "answers of the demo's sample base", "value words without the value")
TOUCHE: Final = "Touché23 validation"
THRESHOLDS: Final = np.linspace(0.02, 0.9, 89)


@dataclass(frozen=True)
class Row(Labelled):
    """A labelled answer of a report."""

    cluster: str = ""
    """Rows that share it are not independent: one topic, one query, one phrase."""
    kind: str = ""


@dataclass(frozen=True)
class Judged:
    """One set of rows, read by one system."""

    rows: Sequence[Row]
    found: Array
    """(rows, 10)"""
    sure: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(rows, 10), the confidence of the detector."""

    @property
    def wanted(self) -> Array:
        return np.stack([row.target for row in self.rows])

    def figures(self) -> dict[str, tuple[float, float, float]]:
        """Name to value and 95 % interval."""
        found, wanted = self.found, self.wanted
        spoken: NDArray[np.bool_] = np.any(wanted, axis=1)
        cosines = np.array([cosine(a, b) for a, b in zip(found, wanted, strict=True)])
        large: NDArray[np.bool_] = np.abs(wanted) >= 0.5
        same: NDArray[np.bool_] = found * wanted > 0
        clusters = [row.cluster for row in self.rows]

        def correlations(i: NDArray[np.intp]) -> list[float]:
            return [pearson(found[i, d], wanted[i, d]) for d in range(found.shape[1])]

        return {
            "mean cosine": interval(lambda i: float(cosines[i][spoken[i]].mean()), clusters),
            "sign accuracy": interval(lambda i: float(same[i][large[i]].mean()), clusters),
            "mean Pearson": interval(lambda i: float(np.nanmean(correlations(i))), clusters, rounds=200),
            "lowest Pearson": interval(
                lambda i: min((c for c in correlations(i) if c == c), default=math.nan), clusters, rounds=200
            ),
        }

    def pearsons(self) -> dict[str, tuple[float, float, float]]:
        """Value to correlation and 95 % interval; a value that nobody was labelled with is left out."""
        found, wanted, clusters = self.found, self.wanted, [row.cluster for row in self.rows]

        def correlation(d: int) -> tuple[float, float, float]:
            return interval(lambda i: pearson(found[i, d], wanted[i, d]), clusters, rounds=200)

        return {name: correlation(d) for d, name in enumerate(load_space("schwartz").names) if wanted[:, d].any()}


def rows_of(data: Path) -> dict[str, list[Row]]:
    """The held-out rows of every set. Raises ConfigError for missing data."""
    space = load_space("schwartz")
    own = parts(bundled(space))["test"]
    return {
        OWN: [_row(r.query, r.answer, r.values, r.topic, r.kind) for r in own],
        FULCRA: [
            _row(r.query, r.text, r.target, r.query) for r in read_fulcra(data) if r.part == "test" and split_sentences(r.text)
        ],
        DRESSED: _dressed(data),
        QUIET[0]: [_row(a.instruction, a.text, label(), a.instruction) for a in read_dolly(data, "heldout")[:150]],
        QUIET[1]: _demo(),
        QUIET[2]: [_row("", sentence, label(), sentence) for sentence in tricky("heldout")],
    }


def read(detector: EncoderDetector, rows: Sequence[Row]) -> Judged:
    """What the detector says of `rows`, through the call that serving makes."""

    async def all_of() -> list[Any]:
        return [await detector.detect(row.query, row.text) for row in rows]

    readings = asyncio.run(all_of())
    found = np.stack([reading.values.array for reading in readings]).astype(np.float32)
    sure = np.array([[reading.confidence[name] for name in detector.space.names] for reading in readings], np.float32)
    return Judged(rows, found, sure)


def baselines(data: Path, encoder: SentenceEncoder) -> dict[str, list[Baseline]]:
    """For the two signed sets, each trained on that set's training part."""
    space = load_space("schwartz")
    own = [_row(r.query, r.answer, r.values, r.topic) for r in parts(bundled(space))["train"]]
    fulcra = [r for r in read_fulcra(data) if r.part == "train" and split_sentences(r.text)]
    lexicon = Lexicon(data, space)
    return {name: [MeanVector(train), lexicon, Ridge(encoder, train)] for name, train in ((OWN, own), (FULCRA, fulcra))}


@dataclass(frozen=True)
class Presence:
    """Touché23: is a value there at all, |v| above a threshold that its training part chose."""

    f1: Mapping[str, float]
    macro: tuple[float, float, float]
    """Mean of the ten, with its 95 % interval over conclusions."""
    thresholds: Mapping[str, float]


def presence(detector: EncoderDetector, data: Path, limit: int = 2000) -> Presence:
    """Thresholds from `limit` arguments of the training part that no detector was trained on, F1 on the validation arguments."""
    names = load_space("schwartz").names
    train, test = (
        [_row(r.query, r.text, r.target, r.query) for r in read_touche(data, part) if r.part != "train"]
        for part in ("training", "validation")
    )
    train, test = [r for r in train if split_sentences(r.text)][:limit], [r for r in test if split_sentences(r.text)]
    size, there = np.abs(read(detector, train).found), np.stack([r.target for r in train]) > 0
    cuts = [_best_cut(size[:, d], there[:, d]) for d in range(len(names))]
    found, wanted = np.abs(read(detector, test).found) > np.array(cuts), np.stack([r.target for r in test]) > 0
    each = {name: _f1(found[:, d], wanted[:, d]) for d, name in enumerate(names)}
    macro = interval(
        lambda i: float(np.mean([_f1(found[i, d], wanted[i, d]) for d in range(len(names))])),
        [r.cluster for r in test],
        rounds=200,
    )
    return Presence(each, macro, dict(zip(names, cuts, strict=True)))


def card(data: Path, folder: Path) -> list[str]:
    """The lines of the card's "Figures" section."""
    detector = load_encoder_detector(folder)
    lines: list[str] = []
    for name, rows in rows_of(data).items():
        judged = read(detector, rows)
        if name in QUIET:
            norms = np.linalg.norm(judged.found, axis=1)
            lines.append(line(f"{name}: norm", len(rows), mean_interval(norms, [r.cluster for r in rows])))
            continue
        lines += [line(f"{name}: {what}", len(rows), figure) for what, figure in judged.figures().items()]
    return [*lines, line(f"{TOUCHE}: macro-F1 of presence", 0, presence(detector, data).macro)]


def line(what: str, count: int, figure: tuple[float, float, float]) -> str:
    """A row of a table."""
    return f"| {what} | {count or ''} | {figure[0]:.3f} | {figure[1]:.3f} to {figure[2]:.3f} |"


def _dressed(data: Path) -> list[Row]:
    order = np.random.default_rng(0)
    answers = read_dolly(data, "heldout")
    pool = list(phrases("heldout"))
    rows = []
    for number, phrase in enumerate(pool):
        answer = answers[order.integers(len(answers))]
        second = [pool[order.integers(len(pool))]] if number % 2 else []
        texts, labels = dress(split_sentences(answer.text), [phrase, *second], order)
        target = np.clip(labels.sum(0), -1, 1).astype(np.float32)
        if target.any():
            rows.append(_row(answer.instruction, " ".join(texts), target, phrase.text))
    return rows


def _demo() -> list[Row]:
    source = importlib.resources.files("visa_proxy") / "demo" / "data" / "answers.yaml"
    rows = yaml.safe_load(source.read_text(encoding="utf-8"))
    return [_row(row["question"], row["answer"], label(), row["question"]) for row in rows]


def _row(query: str, text: str, target: Array, cluster: str, kind: str = "") -> Row:
    return Row(query, text, target, np.ones_like(target), "test", cluster, kind)


def _best_cut(size: Array, there: NDArray[np.bool_]) -> float:
    return float(max(THRESHOLDS, key=lambda cut: _f1(size > cut, there)))


def _f1(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    both = float((found & wanted).sum())
    return 2 * both / max(1.0, float(found.sum() + wanted.sum()))
