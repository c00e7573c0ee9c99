"""Answers with value labels by others: Value FULCRA (whole answers) and persona statements (one or two values)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from visa_proxy.errors import ConfigError
from visa_proxy.training.jsonl import rows
from visa_proxy.values import load_space

TEST: Final = 0.2
VALIDATION: Final = 0.1
PERSONA_PER_FILE: Final = 120
_ENTRY: Final = re.compile(r"\s*([a-z-]+)\s*:\s*([+-]?)1\+?\s*")
"""A label of FULCRA: "security: +1", "security: -1", and the spellings "security: 1" and "security: 1+"."""

PERSONAS: Final[dict[str, tuple[dict[str, float], dict[str, float]]]] = {
    "risk-seeking": ({"stimulation": 1.0, "security": -0.5}, {"stimulation": -0.5, "security": 1.0}),
    "risk-averse": ({"stimulation": -0.5, "security": 1.0}, {"stimulation": 1.0, "security": -0.5}),
    "desire-for-acquiring-power": ({"power": 1.0}, {"power": -1.0}),
    "desire-for-powerful-positions": ({"power": 1.0}, {"power": -1.0}),
    "desire-for-acquiring-wealth": ({"power": 1.0}, {"power": -1.0}),
    "desire-for-self-improvement": ({"achievement": 0.5}, {"achievement": -0.5}),
    "desire-to-be-more-creative": ({"self_direction": 1.0}, {"self_direction": -0.5}),
    "agreeableness": ({"benevolence": 1.0}, {"benevolence": -1.0}),
    "psychopathy": ({"benevolence": -1.0}, {"benevolence": 1.0}),
    "willingness-to-defer-to-authorities": (
        {"conformity": 1.0, "self_direction": -0.5},
        {"conformity": -0.5, "self_direction": 0.5},
    ),
    "subscribes-to-Confucianism": ({"tradition": 1.0}, {"tradition": -0.5}),
}
"""Behaviour to the values of a statement that shows it, and of one that rejects it: our reading, weak labels."""


Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Labelled:
    """One text with a label on some values."""

    query: str
    text: str
    target: NDArray[np.float32]
    mask: NDArray[np.float32]
    """1 where the label says something, 0 where it is silent."""
    part: Part


def read_fulcra(data_dir: Path) -> list[Labelled]:
    """`data_dir/fulcra/*.jsonl` (MIT). Labels in {-1, 0, +1}; a value with both signs counts 0. The part goes by the query.

    Raises ConfigError when there is no such file, or a row of one is wrong.
    """
    files = sorted((data_dir / "fulcra").glob("*.jsonl"))
    if not files:
        raise ConfigError([f"{data_dir / 'fulcra'}: no *.jsonl here; it is trustworthy_data.jsonl of microsoft/ValueCompass"])
    index = load_space("schwartz").index
    found: list[Labelled] = []
    for row in rows(*files):
        human, _, bob = row.text("dialogue").partition("\nBob:")
        target = np.zeros(len(index), np.float32)
        entries = row.data.get("value_types")
        if not isinstance(entries, list):
            raise row.wrong("value_types", entries, "a list of texts such as 'security: +1'")
        for entry in entries:
            match = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
            if match is None:
                raise row.wrong("value_types", entry, "such as 'security: +1'")
            if (name := match[1].replace("-", "_")) in index:  # not face and humility, which stand between two values each
                target[index[name]] += -1.0 if match[2] == "-" else 1.0
        query = human.removeprefix("Human:").strip()
        found.append(Labelled(query, bob.strip(), target, np.ones_like(target), part_of(query)))
    return found


def read_personas(data_dir: Path) -> list[Labelled]:
    """Statements of `data_dir/anthropic-persona-evals/*.jsonl` (CC BY 4.0); none where they are absent.

    Raises ConfigError when a row is wrong.
    """
    index = load_space("schwartz").index
    found: list[Labelled] = []
    for behaviour, poles in PERSONAS.items():
        file = data_dir / "anthropic-persona-evals" / f"{behaviour}.jsonl"
        statements = sorted(rows(file), key=lambda row: share(row.text("statement"))) if file.exists() else []
        for row in statements[:PERSONA_PER_FILE]:
            target, mask = np.zeros(len(index), np.float32), np.zeros(len(index), np.float32)
            for name, level in poles[row.one_of("answer_matching_behavior", "Yes", "No") == "No"].items():
                target[index[name]], mask[index[name]] = level, 1.0
            statement = row.text("statement").rstrip(".") + "."
            found.append(Labelled("", statement, target, mask, part_of(statement[::-1])))
    return found


def share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: splits and folds that stay put when data is added."""
    return int.from_bytes(hashlib.sha256(key.strip().encode()).digest()[:4], "big") / 2**32


def part_of(key: str) -> Part:
    """Where everything with this key belongs: 20 % of all keys are test, 10 % validation, by hash."""
    place = share(key)
    return "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"
