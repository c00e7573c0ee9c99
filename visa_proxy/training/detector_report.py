"""Held-out figures of a trained detector, for its MODEL_CARD."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.progress import Progress

from visa_proxy.encoder.head import Head, load_head
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.encoder.sentences import split_clauses, split_sentences
from visa_proxy.training.cards import cosine, figure
from visa_proxy.training.compose import dress
from visa_proxy.training.corpus import Answer, Split, read_dolly
from visa_proxy.training.detector import tricky
from visa_proxy.training.heads import Array, Encodings, encode_all
from visa_proxy.training.labelled import read_fulcra
from visa_proxy.training.phrases import Phrase, phrases
from visa_proxy.values import load_space

SIDES: Final[tuple[Split, ...]] = ("heldout", "train")
ANSWERS_PER_PHRASE: Final = 2
NEUTRAL_ANSWERS: Final = 150
TRAINING_PHRASES: Final = 100


@dataclass(frozen=True)
class Case:
    """One held-out answer."""

    query: str
    sentences: tuple[str, ...]
    target: Array
    """(10,)"""
    cluster: str
    """Cases that share it are not independent: they hold the same phrase, or answer the same query."""


def evaluate(encoder: SentenceEncoder, data: Path, weights: Path, cache: Path | None = None) -> list[str]:
    """The lines of the card's "Figures" section. `cache` keeps encodings."""
    head = load_head(weights, load_space("schwartz").names)
    phrased = {f"{side} phrases": dressed_cases(data, side) for side in SIDES}
    quiet = {
        "held-out neutral answers, no phrase": neutral_cases(data),
        "demo base answers (never trained on)": demo_cases(),
        "value words without the value, held out": tricky_cases(),
    }
    fulcra = fulcra_cases(data)
    every = [case for cases in (*phrased.values(), *quiet.values(), fulcra) for case in cases]
    with Progress() as progress:
        texts = (text for case in every for text in (case.query or "-", *_clauses(case)))
        encodings = encode_all(encoder, texts, progress, cache)
    lines: list[str] = []
    for name, cases in phrased.items():
        lines += _signed(f"{name} in held-out neutral answers", cases, measure(head, encodings, cases))
    for name, cases in quiet.items():
        lines += _quiet(name, cases, measure(head, encodings, cases))
    lines += _signed("FULCRA, held-out queries", fulcra, measure(head, encodings, fulcra))
    mean = np.mean([row.target for row in read_fulcra(data) if not row.heldout], axis=0)
    baseline = [cosine(mean, case.target) for case in fulcra]
    clusters = [case.cluster for case in fulcra]
    return [*lines, figure("FULCRA, held-out queries: cosine of predicting the training mean", baseline, clusters)]


def measure(head: Head, encodings: Encodings, cases: Sequence[Case]) -> NDArray[np.float64]:
    """(cases, 10): as `EncoderDetector` measures them."""
    rows = np.zeros((len(cases), len(load_space("schwartz"))))
    for row, case in zip(rows, cases, strict=True):
        query = encodings.encoded(case.query) if case.query else None
        for clause in _clauses(case):
            row += head(encodings.encoded(clause), query)
    return np.clip(rows, -1, 1)


def _clauses(case: Case) -> list[str]:
    return [clause for sentence in case.sentences for clause in split_clauses(sentence)]


def dressed_cases(data: Path, split: Split, seed: int = 0) -> list[Case]:
    """Held-out neutral answers, each with one phrase of `split`, and every other one with a second phrase."""
    order = np.random.default_rng(seed)
    pool = list(phrases(split))
    answers = read_dolly(data, "heldout")
    if split == "train":
        pool = [pool[i] for i in order.permutation(len(pool))[:TRAINING_PHRASES]]
    cases: list[Case] = []
    for number, phrase in enumerate(phrase for phrase in pool for _ in range(ANSWERS_PER_PHRASE)):
        second = [pool[order.integers(len(pool))]] if number % 2 else []
        case = _dressed(answers[order.integers(len(answers))], [phrase, *second], order)
        if case is not None:
            cases.append(case)
    return cases


def _dressed(answer: Answer, chosen: list[Phrase], order: np.random.Generator) -> Case | None:
    texts, parts = dress(split_sentences(answer.text), chosen, order)
    target: Array = np.clip(parts.sum(0), -1, 1)
    return Case(answer.instruction, tuple(texts), target, chosen[0].text) if target.any() else None


def neutral_cases(data: Path) -> list[Case]:
    answers = read_dolly(data, "heldout")[:NEUTRAL_ANSWERS]
    return [_zero(answer.instruction, split_sentences(answer.text)) for answer in answers]


def demo_cases() -> list[Case]:
    """The answers the demo's sample base replays; none where the demo is not installed."""
    source = importlib.resources.files("visa_proxy") / "demo" / "data" / "answers.yaml"
    if not source.is_file():
        return []
    rows = yaml.safe_load(source.read_text(encoding="utf-8"))
    return [_zero(row["question"], split_sentences(row["answer"])) for row in rows]


def tricky_cases() -> list[Case]:
    return [_zero("", [sentence]) for sentence in tricky("heldout")]


def fulcra_cases(data: Path) -> list[Case]:
    rows = (row for row in read_fulcra(data) if row.heldout and row.target.any())
    cases = (Case(row.query, tuple(split_sentences(row.text)), row.target, row.query) for row in rows)
    return [case for case in cases if case.sentences]


def _zero(query: str, sentences: Sequence[str]) -> Case:
    return Case(query, tuple(sentences), np.zeros(len(load_space("schwartz")), np.float32), query or sentences[0])


def _signed(name: str, cases: Sequence[Case], found: NDArray[np.float64]) -> list[str]:
    clusters = [case.cluster for case in cases]
    wanted = np.array([case.target for case in cases])
    spoken = wanted != 0
    signs = [float((np.sign(row[on]) == np.sign(t[on])).mean()) for row, t, on in zip(found, wanted, spoken, strict=True)]
    other = [float(np.abs(row[~on]).mean()) for row, on in zip(found, spoken, strict=True) if (~on).any()]
    cosines = [cosine(row, target) for row, target in zip(found, wanted, strict=True)]
    names = load_space("schwartz").names
    pearson = ", ".join(
        f"{label} {np.corrcoef(found[:, i], wanted[:, i])[0, 1]:.2f}"
        for i, label in enumerate(names)
        if wanted[:, i].std() > 0 and found[:, i].std() > 0
    )
    return [
        figure(f"{name}: cosine", cosines, clusters),
        figure(f"{name}: sign accuracy on the values that are there", signs, clusters),
        figure(f"{name}: mean abs. of the values that are not", other, clusters) if len(other) == len(cases) else "",
        f"| {name}: Pearson a value | {len(cases)} | {pearson} | |",
    ]


def _quiet(name: str, cases: Sequence[Case], found: NDArray[np.float64]) -> list[str]:
    if not cases:
        return []
    clusters = [case.cluster for case in cases]
    return [
        figure(f"{name}: mean abs. component", [float(np.abs(row).mean()) for row in found], clusters),
        figure(f"{name}: norm", [float(np.linalg.norm(row)) for row in found], clusters),
        figure(
            f"{name}: share with a component beyond 0.25",
            [float((np.abs(row) > 0.25).any()) for row in found],
            clusters,
        ),
    ]
