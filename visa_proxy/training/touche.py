"""Touché23-ValueEval (SemEval-2023 task 4; Kiesel et al. 2023): arguments and the values they resort to, by presence.

The files are read from a folder the caller names (`--data`); nothing of them is bundled (CC BY-SA 4.0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np

from visa_proxy.errors import ConfigError
from visa_proxy.training.jsonl import table
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
_HINT: Final = "; it is part of Touché23-ValueEval (doi:10.5281/zenodo.6814563)"


def read_touche(data_dir: Path, part: Literal["training", "validation"]) -> list[Labelled]:
    """The arguments of `data_dir/touche23-valueeval`: query = conclusion and stance, text = premise, target 1 where the value is present.

    Those of Touché's validation part are "test"; of its training part three in ten conclusions are "validation", for choosing thresholds.

    Raises ConfigError naming the file that is missing or not the data set's.
    """
    folder = data_dir / "touche23-valueeval"
    arguments, labels = folder / f"arguments-{part}.tsv", folder / f"labels-{part}.tsv"
    by_id = {row.text("Argument ID"): row for row in table(labels, ("Argument ID",), hint=_HINT)}
    index = load_space("schwartz").index
    rows: list[Labelled] = []
    for argument in table(arguments, ("Argument ID", "Conclusion", "Stance", "Premise"), hint=_HINT):
        label = by_id.get(argument.text("Argument ID"))
        if label is None:
            raise argument.wrong("Argument ID", argument.text("Argument ID"), f"those of {labels}")
        names = {category: CATEGORIES.get(category.partition(":")[0]) for category in label.data}
        if not any(names.values()):
            raise ConfigError([f"{labels}, line 1: no column for a value, allowed: such as 'Power: dominance'"])
        target = np.zeros(len(index), np.float32)
        for category, name in names.items():
            if name and label.one_of(category, "0", "1") == "1":
                target[index[name]] = 1.0
        conclusion, stance = argument.text("Conclusion"), argument.text("Stance")
        own: Part = "test" if part == "validation" else "validation" if share(conclusion) < FOR_THRESHOLDS else "train"
        rows.append(Labelled(f"{conclusion} ({stance})", argument.text("Premise"), target, np.ones_like(target), own))
    if not rows:
        raise ConfigError([f"{arguments}: no argument in it"])
    return rows
