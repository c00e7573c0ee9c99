"""Rows and files of a MODEL_CARD."""

from __future__ import annotations

import importlib.resources
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visa_proxy.training.heads import bootstrap


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """In [-1, 1]; 0 when either vector is zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def figure(name: str, values: Sequence[float], clusters: Sequence[object]) -> str:
    """A table row: what, n, mean, 95 % bootstrap interval over clusters."""
    mean, low, high = bootstrap(values, clusters)
    return f"| {name} | {len(values)} | {mean:.3f} | {low:.3f} to {high:.3f} |"


def write_card(out: Path, template: str, command: Sequence[str], lines: Sequence[str], recipe: str) -> Path:
    """`out/MODEL_CARD.md` from `recipes/<template>.md`."""
    source = importlib.resources.files("visa_proxy.training") / "recipes" / f"{template}.md"
    text = source.read_text(encoding="utf-8")
    fields = {"command": shlex.join(command), "figures": "\n".join(filter(None, lines)), "recipe": recipe}
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", value.strip())
    card = out / "MODEL_CARD.md"
    card.write_text(text, encoding="utf-8")
    return card
