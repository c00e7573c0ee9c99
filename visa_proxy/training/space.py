"""A head for another value space, on the encoder of a detector that stays as it is (paper, section 3.1, Eq. 1; appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import Progress

from visa_proxy.detector.encoder import outputs
from visa_proxy.detector.weights import SCHWARTZ, file_name
from visa_proxy.encoder.adapted import adapted_encoder, digest
from visa_proxy.encoder.head import WEIGHTS, Head
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.training.annotated import Annotated, bundled, parts, read_annotated
from visa_proxy.training.detector import ClippedError, annotated, calibration
from visa_proxy.training.heads import Array, Encodings, Example, FitRecipe, Fitter, encode_all, save_head
from visa_proxy.training.loop import check_writable
from visa_proxy.training.stats import cosine, interval, pearson
from visa_proxy.values import Space, join, load_space, space_file
from visa_proxy.values.load import FILE

MIN_ANSWERS: Final = 20
NEUTRAL: Final = 120
"""Matter-of-fact answers of Schwartz's corpus that are added with a label of 0: a few dozen answers alone say little about ordinary text."""
NEUTRAL_WEIGHT: Final = 0.5
RECIPE: Final = FitRecipe(
    hidden=96, seeds=3, epochs=40, batch=32, learning_rate=3e-3, weight_decay=0.1, dropout=0.3, query_dropout=0.5
)


def train_space(name: str, data: Path | None, base: Path, out: Path | None, seed: int) -> tuple[list[str], Path]:
    """Fits, measures on held-out answers and writes the head; gives the lines of the report and the file written.

    Raises ConfigError when the space or a labelled row is wrong, when there are fewer than 20 answers, or one dimension has none.
    """
    space = load_space(name)
    if space.name == SCHWARTZ:
        raise ConfigError(["--space: schwartz is trained with its encoder, by `visa-proxy train detector`"])
    join([load_space(SCHWARTZ), space])
    if not (base / file_name(load_space(SCHWARTZ))).is_file():
        raise ConfigError([f"--detector: {base}: no folder of a detector: there is no {file_name(load_space(SCHWARTZ))}"])
    rows = bundled(space) if data is None else read_annotated(data, space)
    split = parts(rows)
    _enough(space, rows, split["train"], data)
    if out is None and data is not None:
        raise ConfigError(["--out: a folder is needed for a space trained on answers of one's own"])
    folder = base if out is None else out
    file = folder / (file_name(space) if out is None else WEIGHTS)
    check_writable(folder)
    if file.is_dir():
        raise ConfigError([f"--out: {file} is a folder"])
    held = [*split["validation"], *split["test"]]
    examples, tests = [*annotated(split["train"], 1), *_neutral(space)], list(annotated(held, 1))
    encoder = adapted_encoder(base)
    with Progress() as progress:
        texts = [text for e in [*examples, *tests] for text in (*e.parts, *([e.query] if e.query else []))]
        encodings = encode_all(encoder, texts, progress)
        fitter = Fitter(encodings, RECIPE, outputs(space), ClippedError(emphasis=2.0, spread_weight=0.05), progress)
        tensors = fitter.fit(examples, seed)
    head = Head(tensors, outputs(space))
    found = measured(head, encodings, tests) if tests else np.zeros((0, 2 * len(space)), np.float32)
    spread = calibration(found, tests) if tests else 1.0
    save_head(file, tensors, outputs(space), layers=digest(base), spread=f"{spread:.4f}")
    if out is not None:
        raw = space_file(name).read_bytes()
        (out / FILE).write_bytes(raw)
    return _report(space, split["train"], held, found, tests), file


def measured(head: Head, encodings: Encodings, examples: Sequence[Example]) -> Array:
    """(examples, outputs): the head's outputs, added up over the sentences of each answer."""
    found = []
    for example in examples:
        encoded = [encodings.encoded(part) for part in example.parts]
        query = encodings.encoded(example.query).pooled if example.query else None
        found.append(head(encoded, query, np.mean([e.pooled for e in encoded], axis=0)).sum(0))
    return np.stack(found)


def _neutral(space: Space) -> list[Example]:
    rows = [row for row in parts(bundled(load_space(SCHWARTZ)))["train"] if row.kind == "neutral"]
    nothing, known = np.zeros(len(space), np.float32), np.ones(len(space), np.float32)
    picked = rows[:: max(1, len(rows) // NEUTRAL)][:NEUTRAL]
    return [Example(tuple(split_sentences(row.answer)), nothing, known, row.query, NEUTRAL_WEIGHT) for row in picked]


def _enough(space: Space, rows: Sequence[Annotated], train: Sequence[Annotated], data: Path | None) -> None:
    place = f"{data}" if data else f"the bundled answers of {space.name}"
    if len(rows) < MIN_ANSWERS:
        raise ConfigError([f"{place}: {len(rows)} answers; at least {MIN_ANSWERS} are needed"])
    missing = [n for i, n in enumerate(space.names) if not any(row.values[i] for row in train)]
    if missing:
        raise ConfigError(
            [
                f"{place}: of the {len(train)} answers to learn from (the others are held out) none has a level other than 0 for "
                f"{', '.join(missing)}; more answers, on more topics, are needed"
            ]
        )


def _report(
    space: Space, train: Sequence[Annotated], held: Sequence[Annotated], found: Array, tests: Sequence[Example]
) -> list[str]:
    lines = [f"{space.name}: trained on {len(train)} answers, {len(held)} held out"]
    labelled = [(f, e, row) for f, e, row in zip(found, tests, held, strict=True) if e.target.any()]
    if labelled:
        size = len(space)
        values = np.array([cosine(np.clip(f[:size], -1, 1), e.target) for f, e, _ in labelled])
        mean, low, high = interval(lambda i: float(values[i].mean()), [row.topic or row.answer for _, _, row in labelled])
        lines.append(f"mean cosine {mean:.3f} ({low:.3f} to {high:.3f}) over {len(values)} answers")
        table, targets = np.clip(found[:, :size], -1, 1), np.stack([e.target for e in tests])
        each = ", ".join(f"{n} {pearson(table[:, i], targets[:, i]):.2f}" for i, n in enumerate(space.names))
        lines.append(f"Pearson: {each}")
    return lines
