"""The value circumplex (paper, App. A.2) as a picture: neighbours are compatible, opposites conflict."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visa_proxy.errors import RequestError
from visa_proxy.optional import need
from visa_proxy.values import ValueVector, load_space

FORMATS = (".svg", ".png", ".pdf")


def check(file: Path) -> None:
    """Raises RequestError for a file name of another kind than a picture."""
    if file.suffix.lower() not in FORMATS:
        raise RequestError(f"--plot: {file.name} ends in {file.suffix or 'nothing'}; allowed: {', '.join(FORMATS)}")


def draw(vector: ValueVector, file: Path) -> None:
    """Schwartz's ten values of `vector` around a circle: the ring in the middle is 0, outside is +1, the centre -1.

    Raises RequestError for a file that cannot be written, MissingExtra without matplotlib.
    """
    figures = need("matplotlib.figure", extra="eval")
    schwartz = load_space("schwartz")
    levels = [vector[name] for name in schwartz.names]
    angles = np.linspace(0, 2 * np.pi, len(levels), endpoint=False)
    figure = figures.Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(projection="polar", theta_offset=np.pi / 2, theta_direction=-1)
    around, closed = [*angles, angles[0]], [*levels, levels[0]]
    axes.plot(around, np.zeros(len(around)), color="0.6", linewidth=1)
    axes.plot(around, closed, color="#3b6ea5", linewidth=2)
    axes.fill(around, closed, color="#3b6ea5", alpha=0.2)
    axes.set_ylim(-1, 1)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1], labels=["-1", "", "0", "", "+1"], color="0.4")
    axes.set_xticks(angles, labels=[d.title for d in schwartz.dimensions])
    try:
        figure.savefig(file)
    except OSError as error:
        raise RequestError(f"--plot: cannot write {file}: {error.strerror}") from error
