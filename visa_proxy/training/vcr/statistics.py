"""What is in the data set: figures, tables and plots (paper, App. C.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.optional import need
from visa_proxy.training.vcr.annotator import Prompt
from visa_proxy.training.vcr.samples import Sample
from visa_proxy.values import LEVELS

MICRO: Final = 1.0
"""A micro edit has |Δv| of at most this, such as four dimensions by half a step each or one by a whole one: our reading, the text of the
paper that we worked from has lost its bound."""
BIN: Final = 0.5
"""Width of the bins of the histogram of |Δv|; a bin has its upper edge, so that micro edits fill bins."""
PLOTS: Final = ("levels.svg", "shift.svg", "shifts.svg")
_COLOURS: Final = ("#8c2d04", "#fe9929", "0.85", "#74a9cf", "#045a8d")
Array = NDArray[np.float64]
README: Final = """\
# Value-conditioned rewrites

Triplets (source, target vector, rewritten) after VCR-45K (VISA, section 4.1 and App. C), made by `visa-proxy data build` from `{data}`.
Their licence is that of those texts.

A line of `train.jsonl`, `validation.jsonl` and `test.jsonl` has `prompt`, `source`, `target` (what `rewritten` expresses: ten values,
-1 … 1), `rewritten` and `delta` (Δv: target less what the source expresses). A pair of answers makes two samples: a positive one from the
rejected to the chosen answer, and a negative one back. All samples of a prompt are in one part.

## How it was made

- Annotator: `{model}`, prompt version `{version}`, seed {seed} for the order in which answers are shown. Both answers are annotated in
  one request, side by side; the explanation of the person who chose counts as the truth. `annotations.jsonl` is what the annotator said.
- Ambiguity filter: of all pairs, at most a share of {drop:g} is discarded, those whose chosen answer is annotated most differently in
  different pairs (variance, mean over dimensions).
- Shift filter: of the rest, pairs with |Δv| < {shift:g} are discarded.

| what | count |
|---|---|
{counts}

## What is in it

{tables}

{plots}

Levels, means and shares are those of the target vectors of all samples. `statistics.json` has the same figures, and the histogram of |Δv|.

## Limits

- The vectors are one model's opinion; nobody has checked them by hand.
- A pair's answers differ in more than values: facts, length and style too. A rewriter that imitates them learns that as well.
"""


def statistics(samples: Sequence[Sample]) -> dict[str, Any]:
    """Figures of at least one sample, both kinds together; shares are 0 … 1, rounded to four digits."""
    names = samples[0].target.space.names
    targets, deltas = _arrays(samples)
    sizes = np.linalg.norm(deltas, axis=1)
    bins = np.maximum(np.ceil(sizes / BIN - 1e-9).astype(int), 1) - 1
    counts = np.bincount(bins)
    edges = np.arange(len(counts) + 1) * BIN
    same = deltas == 0
    return {
        "unique_vectors": len(np.unique(targets, axis=0)),
        "dimensions": {
            name: {
                "mean": _short(targets[:, d].mean()),
                "levels": {f"{level:g}": _short((targets[:, d] == level).mean()) for level in LEVELS},
                "unchanged": _short(same[:, d].mean()),
            }
            for d, name in enumerate(names)
        },
        "unchanged": _short(same.mean()),
        "shift": {
            "mean": _short(sizes.mean()),
            "micro": _short((sizes <= MICRO + 1e-9).mean()),
            "micro_bound": MICRO,
            "histogram": {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]},
        },
    }


def tables(figures: dict[str, Any]) -> str:
    """The same in Markdown."""
    levels = [f"{level:g}" for level in LEVELS]
    lines = [
        f"{figures['unique_vectors']} different value vectors. |Δv| is {figures['shift']['mean']:.2f} on average;"
        f" {figures['shift']['micro']:.1%} are micro edits (|Δv| ≤ {figures['shift']['micro_bound']:g}).",
        f"A dimension stays as it is in {figures['unchanged']:.1%} of all samples.",
        "",
        f"| dimension | mean | {' | '.join(levels)} | unchanged |",
        f"|---|{'---|' * (len(levels) + 2)}",
    ]
    for name, row in figures["dimensions"].items():
        shares = " | ".join(f"{row['levels'][level]:.1%}" for level in levels)
        lines.append(f"| {name} | {row['mean']:+.2f} | {shares} | {row['unchanged']:.1%} |")
    return "\n".join(lines)


def page(figures: dict[str, Any], data: str, prompt: Prompt, drop_ambiguous: float, min_shift: float) -> str:
    """README.md of the folder. `figures` has "counts", "skipped" and "parts" beside those of `statistics`; `data` is where it came from."""
    rows = [(name.replace("_", " "), count) for name, count in figures["counts"].items()]
    rows += [(f"skipped: {why}", count) for why, count in figures["skipped"].items()]
    rows += [(f"samples in {part}", count) for part, count in figures["parts"].items()]
    return README.format(
        data=data,
        model=prompt.model,
        version=prompt.version,
        seed=prompt.seed,
        drop=drop_ambiguous,
        shift=min_shift,
        counts="\n".join(f"| {name} | {count} |" for name, count in rows),
        tables=tables(figures),
        plots="\n".join(f"![{name}]({name})" for name in PLOTS),
    )


def plot(samples: Sequence[Sample], folder: Path) -> None:
    """Writes `PLOTS` into `folder`, the same bytes for the same samples. Raises MissingExtra without matplotlib."""
    matplotlib, figures = need("matplotlib", extra="eval"), need("matplotlib.figure", extra="eval")
    with matplotlib.rc_context({"svg.hashsalt": "visa-proxy", "font.size": 9}):
        for name, draw in zip(PLOTS, (_levels, _shift, _shifts), strict=True):
            figure = figures.Figure(figsize=(7, 4), layout="constrained")
            draw(figure.add_subplot(), samples)
            figure.savefig(folder / name, metadata={"Date": None})


def _levels(axes: Any, samples: Sequence[Sample]) -> None:
    """Share of each level of each dimension of the target vectors, stacked."""
    targets, _ = _arrays(samples)
    names, left = samples[0].target.space.names, np.zeros(targets.shape[1])
    for level, colour in zip(LEVELS, _COLOURS, strict=True):
        share = (targets == level).mean(0)
        axes.barh(names, share, left=left, color=colour, label=f"{level:+g}" if level else "0")
        left = left + share
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of samples", title="Levels of the target vectors")
    axes.legend(ncols=len(LEVELS), loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)


def _shift(axes: Any, samples: Sequence[Sample]) -> None:
    """Histogram of |Δv|."""
    histogram = statistics(samples)["shift"]["histogram"]
    axes.stairs(histogram["counts"], histogram["edges"], fill=True, color=_COLOURS[-2])
    axes.axvline(MICRO, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="|Δv|", ylabel="samples", title="How far a rewrite goes (left of the line: micro edits)")


def _shifts(axes: Any, samples: Sequence[Sample]) -> None:
    """Δv of each dimension, as violins; of the positive samples, since the negative ones mirror them."""
    names = samples[0].target.space.names
    _, deltas = _arrays([sample for sample in samples if sample.kind == "positive"])
    # A density needs two different values; where there are none, the mean alone is drawn.
    places = [d for d in range(len(names)) if np.ptp(deltas[:, d]) > 0]
    if places:
        violins = axes.violinplot([deltas[:, d] for d in places], positions=places, widths=0.9, showextrema=False)
        for body in violins["bodies"]:
            body.set(facecolor=_COLOURS[-2], alpha=0.8)
    axes.plot(range(len(names)), deltas.mean(0), "_", color="0.2", markersize=10)
    axes.set_xticks(range(len(names)), labels=names, rotation=35, ha="right")
    axes.set(ylabel="Δv", ylim=(-2.1, 2.1), title="Δv from the rejected to the chosen answer (line: mean)")


def _arrays(samples: Sequence[Sample]) -> tuple[Array, Array]:
    """Target vectors and Δv: (samples, dimensions) each."""
    return np.stack([sample.target.array for sample in samples]), np.stack([sample.delta for sample in samples])


def _short(value: Any) -> float:
    return round(float(value), 4)
