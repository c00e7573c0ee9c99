"""What more annotated text would bring: detector and translator trained on 1/8, 1/4, 1/2 and all of the training topics.

    python benchmarks/learning_curve.py

A small recipe (two layers of the encoder, hand-written text alone, as many steps for each point), so that a point takes minutes; the shipped
weights are trained for longer and on more. Judged on the same unseen topics throughout. Writes docs/results/learning-curve.md and a plot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from proxy import ROOT, machine
from rich.console import Console

from visa_proxy.detector.encoder import outputs
from visa_proxy.training.annotated import bundled, parts
from visa_proxy.training.detector import ClippedError, annotated
from visa_proxy.training.heads import Array, Example
from visa_proxy.training.labelled import share
from visa_proxy.training.stats import cosine, mean_interval
from visa_proxy.training.summed import SummedModel, SummedRecipe, mean_cosine
from visa_proxy.training.translator import TranslationError, example, written
from visa_proxy.translator.encoder import OUTPUTS
from visa_proxy.values import load_space

RESULTS: Final = ROOT / "docs" / "results"
SHARES: Final = (1 / 8, 1 / 4, 1 / 2, 1.0)
EPOCHS: Final = 4
"""Over everything; over a part of it as many more as make the same number of steps."""
SEED: Final = 0
Point = tuple[int, tuple[float, float, float]]
console = Console()


def point(
    train: Sequence[Example], held: Sequence[Example], test: Sequence[Example], model: SummedModel, clusters: Sequence[str]
) -> Point:
    """Examples trained on, and the mean cosine on `test` with its interval."""
    size = len(load_space("schwartz"))
    with tempfile.TemporaryDirectory() as folder:
        model.fit(train, held, lambda found: mean_cosine(found, held, size), Path(folder), f"{len(train)} examples")
    found: Array = model.outputs(test)
    cosines = np.array([cosine(row[:size].clip(-1, 1), e.target[:size]) for row, e in zip(found, test, strict=True)])
    return len(train), mean_interval(cosines, clusters)


def recipe(part: float) -> SummedRecipe:
    return SummedRecipe.model_validate({"layers": 2, "hidden": 128, "epochs": round(EPOCHS / part), "learning_rate": 4e-4})


def detector() -> list[Point]:
    space = load_space("schwartz")
    split = parts(bundled(space))
    test = [row for row in split["test"] if row.values.any()]
    points = []
    for part in SHARES:
        train = [row for row in split["train"] if share(f"curve {row.topic}") < part]
        model = SummedModel(recipe(part), outputs(space), ClippedError(2.0, 0.0), SEED)
        sets = [list(annotated(rows, 1)) for rows in (train, split["validation"], test)]
        points.append(point(sets[0], sets[1], sets[2], model, [row.topic for row in test]))
    return points


def translator() -> list[Point]:
    split = {part: [(r.asker, example(r)) for r in written(part) if r.offset.any()] for part in ("train", "validation", "test")}
    points = []
    for part in SHARES:
        train = [e for asker, e in split["train"] if share(f"curve {asker}") < part]
        model = SummedModel(recipe(part), OUTPUTS, TranslationError(0.1), SEED)
        test = split["test"]
        points.append(
            point(train, [e for _, e in split["validation"]], [e for _, e in test], model, [asker for asker, _ in test])
        )
    return points


def main() -> None:
    curves = {"detector (annotated answers)": detector(), "translator (instructions)": translator()}
    lines = [
        "# What more text would bring",
        "",
        f"Written by `benchmarks/learning_curve.py` on {machine()}: a small recipe (two layers, as many steps for each point, "
        "hand-written text alone), mean cosine on unseen topics and askers, 95 % bootstrap intervals. The shipped weights are trained "
        "for longer and on more.",
        "",
        "| trained on | " + " | ".join(f"{part:.1%} of the topics" for part in SHARES) + " |",
        "|---|" + "---|" * len(SHARES),
    ]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        cells = [f"{count}: {mean:.3f} ({low:.3f} to {high:.3f})" for count, (mean, low, high) in points]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        counts, means = [count for count, _ in points], [figures[0] for _, figures in points]
        spread = np.array([[mean - low, high - mean] for _, (mean, low, high) in points]).T
        axes.errorbar(counts, means, yerr=spread, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="training examples", ylabel="mean cosine on unseen topics")
    axes.legend()
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "learning-curve.svg")
    lines += ["", "![Learning curves](learning-curve.svg)"]
    (RESULTS / "learning-curve.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
