"""How good the bundled instruments are on held-out text, beside simple baselines.

    python benchmarks/instrument_quality.py --data DATA

`DATA` holds the public sets (dolly, fulcra, touche23-valueeval, pyvalues-dictionary, e-snli). Prints the tables, and writes
docs/results/instruments.md with three plots: each value measured against annotated, calibration, and confusion of neighbours.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from proxy import ROOT, machine
from rich.console import Console

from visa_proxy.detector.encoder import HALF_STEP
from visa_proxy.detector.weights import load_encoder_detector
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.facts.load import BUNDLED as FACTS
from visa_proxy.training import detector_report, facts_report, translator_report
from visa_proxy.training.detector_report import OWN, QUIET, Judged, Presence
from visa_proxy.translator.encoder import EncoderTranslator
from visa_proxy.values import load_space

RESULTS: Final = ROOT / "docs" / "results"
NAMES: Final = load_space("schwartz").names
Figures = tuple[float, float, float]
console = Console()


def interval(figure: Figures) -> str:
    return f"{figure[0]:.3f} ({figure[1]:.3f} to {figure[2]:.3f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows), ""]


def detector_lines(data: Path) -> tuple[list[str], dict[str, Judged]]:
    """The detector's sections, and what it said of each set."""
    detector = load_encoder_detector()
    rows = detector_report.rows_of(data)
    judged = {name: detector_report.read(detector, each) for name, each in rows.items()}
    lines = ["## Detector", ""]
    others = detector_report.baselines(data, SentenceEncoder())
    for name, baselines in others.items():
        found = [(b.name, Judged(rows[name], b(rows[name]))) for b in baselines]
        found.append(("**visa-proxy**", judged[name]))
        figures = [(system, each.figures()) for system, each in found]
        lines += [f"### {name} ({len(rows[name])} answers)", ""]
        lines += table(["system", *figures[0][1]], [[system, *map(interval, each.values())] for system, each in figures])
        each = judged[name].pearsons()
        lines += table(["Pearson", *each], [["visa-proxy", *(f"{value[0]:.2f}" for value in each.values())]])
    lines += _kinds(judged[OWN])
    lines += ["### Presence of a value, Touché23 validation", "", *presence_lines(detector_report.presence(detector, data))]
    lines += ["### Text that takes no stand", ""]
    quiet = [[name, str(len(rows[name])), f"{np.linalg.norm(judged[name].found, axis=1).mean():.3f}"] for name in QUIET]
    return [*lines, *table(["text", "n", "mean norm of the vector"], quiet)], judged


def _kinds(judged: Judged) -> list[str]:
    """Mean cosine of the annotated answers by kind."""
    kinds = sorted({row.kind for row in judged.rows if row.target.any()})
    cells = []
    for kind in kinds:
        picked = [i for i, row in enumerate(judged.rows) if row.kind == kind and row.target.any()]
        part = Judged([judged.rows[i] for i in picked], judged.found[picked])
        cells.append([kind, str(len(picked)), interval(part.figures()["mean cosine"])])
    return ["### By kind of answer", "", *table(["kind", "n", "mean cosine"], cells)]


def presence_lines(found: Presence) -> list[str]:
    lines = table(["", *found.f1, "macro-F1"], [["F1", *(f"{f:.2f}" for f in found.f1.values()), interval(found.macro)]])
    return [
        *lines,
        "A value is there when its size is above a threshold that training arguments chose. For comparison, SemEval-2023 task 4 scored the "
        "twenty finer categories on its test part: 1-baseline 0.26, BERT baseline 0.42, best team 0.56 (Kiesel et al. 2023, table 2); "
        "ten coarser values are the easier task.",
        "",
    ]


def translator_lines(data: Path) -> list[str]:
    translator = EncoderTranslator()
    lines = ["## Translator", ""]
    asks: list[list[str]] = []
    rests: list[list[str]] = []
    for name, requests in translator_report.sets(data).items():
        figures = translator_report.translate(translator, requests).figures()
        (asks if "mean cosine" in figures else rests).append([name, str(len(requests)), *map(interval, figures.values())])
    lines += table(["instructions that ask for values", "n", "mean cosine", "sign accuracy", "confidence"], asks)
    lines += table(
        ["that ask for none", "n", "norm", "share with a norm of at most 0.2", "share refused for the language"], rests
    )
    return lines


def facts_lines(data: Path) -> list[str]:
    return ["## Fact analyzer", "", *facts_report.card(data, FACTS), ""]


def scatter(judged: Judged, file: Path) -> None:
    """Measured against annotated level, one panel a value."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    jitter = np.random.default_rng(0).normal(0, 0.03, judged.found.shape)
    for i, axes in enumerate(figure.subplots(2, 5, sharex=True, sharey=True).flat):
        axes.plot([-1, 1], [-1, 1], color="0.7", linewidth=1)
        axes.scatter(judged.wanted[:, i] + jitter[:, i], judged.found[:, i], s=5, alpha=0.4, color="#3b6ea5", linewidths=0)
        axes.set_title(NAMES[i], fontsize=9)
    figure.supxlabel("annotated")
    figure.supylabel("measured")
    figure.savefig(file)


def calibration(judged: Judged, file: Path) -> list[str]:
    """Stated against observed share of levels within a quarter."""
    sure, right = judged.sure.ravel(), (np.abs(judged.found - judged.wanted) <= HALF_STEP).ravel()
    edges = np.quantile(sure, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, 9)
    stated = np.array([sure[bins == b].mean() for b in range(10) if (bins == b).any()])
    observed = np.array([right[bins == b].mean() for b in range(10) if (bins == b).any()])
    weight = np.array([(bins == b).mean() for b in range(10) if (bins == b).any()])
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(stated, observed, marker="o", color="#3b6ea5")
    axes.set(xlabel="stated confidence", ylabel=f"share within ±{HALF_STEP}", xlim=(0, 1.02), ylim=(0, 1.02))
    figure.savefig(file)
    return [f"Expected calibration error of the confidence: {float((weight * np.abs(stated - observed)).sum()):.3f}.", ""]


def confusion(judged: Judged, file: Path) -> list[str]:
    """Which value is found strongest where another one is annotated."""
    share: NDArray[np.float64] = np.zeros((10, 10))
    for row, found in zip(judged.wanted, judged.found, strict=True):
        if np.count_nonzero(row) == 1:
            share[int(np.argmax(np.abs(row))), int(np.argmax(np.abs(found)))] += 1
    share /= np.maximum(1, share.sum(1, keepdims=True))
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot()
    image: Any = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(10), labels=NAMES, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(10), labels=NAMES, fontsize=8)
    axes.set(xlabel="strongest measured", ylabel="annotated (answers with one value)")
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(file)
    near = float(np.mean([share[i, (i + 1) % 10] + share[i, (i - 1) % 10] for i in range(10)]))
    return [
        f"Mean over the ten values: the annotated one is the strongest in {np.trace(share) / 10:.1%} of its answers, a neighbour on the "
        f"circle in {near:.1%}.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Detector, translator and fact analyzer on held-out text",
        "",
        f"Written by `benchmarks/instrument_quality.py` on {machine()}. In brackets: 95 % bootstrap intervals over topics, queries, "
        "askers or conclusions. Whole topics, queries, askers and phrases are held out by hash; nothing here was trained on.",
        "",
    ]
    found, judged = detector_lines(data)
    lines += found
    scatter(judged[OWN], RESULTS / "instruments-values.svg")
    lines += [
        "![Measured against annotated level](instruments-values.svg)",
        "",
        *calibration(judged[OWN], RESULTS / "instruments-calibration.svg"),
    ]
    lines += ["![Calibration](instruments-calibration.svg)", "", *confusion(judged[OWN], RESULTS / "instruments-confusion.svg")]
    lines += ["![Confusion](instruments-confusion.svg)", "", *translator_lines(data), *facts_lines(data)]
    (RESULTS / "instruments.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
