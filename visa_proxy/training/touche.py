"""Touché23-ValueEval (SemEval-2023 task 4; Kiesel et al. 2023): arguments and the values they resort to, by presence.

The files are read from a folder the caller names (`--data`); nothing of them is bundled (CC BY-SA 4.0).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from visa_proxy.errors import ConfigError
from visa_proxy.training.labelled import Labelled, Part, share
from visa_proxy.values import load_space

CATEGORIES: Final = {
    "Self-direction": "self_direction",
    "Stimulation": "stimulation",
    "Hedonism": "hedonism",
    "Achievement": "achievement",
    "Power": "power",
    "Security": "security",
    "Tradition": "tradition",
    "Conformity": "conformity",
    "Benevolence": "benevolence",
    "Universalism": "universalism",
}
"""Twenty categories ("Power: dominance") to the ten values; Face and Humility stand between two values each, and are left out."""

FOR_THRESHOLDS: Final = 0.3


def read_touche(data_dir: Path, part: Literal["training", "validation"]) -> list[Labelled]:
    """The arguments of `data_dir/touche23-valueeval`: query = conclusion and stance, text = premise, target 1 where the value is present.

    Those of Touché's validation part are "test"; of its training part three in ten conclusions are "validation", for choosing thresholds.

    Raises ConfigError naming the file that is missing or not the data set's.
    """
    folder = data_dir / "touche23-valueeval"
    labels = {row["Argument ID"]: row for row in _rows(folder / f"labels-{part}.tsv")}
    index = load_space("schwartz").index
    rows: list[Labelled] = []
    for argument in _rows(folder / f"arguments-{part}.tsv"):
        try:
            found = labels[argument["Argument ID"]]
            conclusion, stance, premise = argument["Conclusion"], argument["Stance"], argument["Premise"]
        except KeyError as error:
            raise ConfigError([f"{folder}: not the files of Touché23-ValueEval: {error} is missing"]) from error
        target = np.zeros(len(index), np.float32)
        for category, flag in found.items():
            name = CATEGORIES.get(category.partition(":")[0])
            if name and flag == "1":
                target[index[name]] = 1.0
        own: Part = "test" if part == "validation" else "validation" if share(conclusion) < FOR_THRESHOLDS else "train"
        rows.append(Labelled(f"{conclusion} ({stance})", premise, target, np.ones_like(target), own))
    return rows


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8", newline="") as source:
            yield from csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: {error}; it is part of Touché23-ValueEval (doi:10.5281/zenodo.6814563)"]) from error
