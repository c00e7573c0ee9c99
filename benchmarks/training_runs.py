"""What a training run left in its folder, read for the page: command, rows, weights, the curve, and where the time went."""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.training.tuning.record import IDENTITY, Curve

CARD: Final = "MODEL_CARD.md"
"""Written last: a folder that has it is finished."""
_COMMAND: Final = re.compile(r"^## (?:Command|Made by)\n+ {4}(.+)$", re.MULTILINE)
_ROWS: Final = re.compile(r"^(\d+) rows trained on, (\d+) left out", re.MULTILINE)
_KEPT: Final = re.compile(r"^\| kept \| (\d+) \|", re.MULTILINE)
_REWARD: Final = re.compile(r"rewards/(.+)/mean")
_REWARD_S: Final = "seconds/reward_"


@dataclass(frozen=True)
class Shares:
    """A step of training that samples: seconds in the mean over all logged steps."""

    step: float
    generation: float
    reward: float

    @property
    def update(self) -> float:
        """All else: the reference's log-probabilities, forward and backward passes, the optimizer."""
        return self.step - self.generation - self.reward


@dataclass(frozen=True)
class Trained:
    """A folder that one of the `visa-proxy train` commands made, or is about to."""

    name: str
    folder: Path

    @functools.cached_property
    def card(self) -> str:
        """Empty where the run has not come to its end."""
        file = self.folder / CARD
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @property
    def command(self) -> str:
        """As the card has it, absolute paths by their last part alone; empty without a card."""
        found = _COMMAND.search(self.card)
        return (
            shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(found[1])) if found else ""
        )

    @property
    def seed(self) -> str:
        """Of the command, else of the recipe; "–" where neither is there."""
        words = self.command.split()
        if "--seed" in words:
            return words[words.index("--seed") + 1]
        return str(self.recipe.get("seed", 0)) if self.recipe else "–"

    @property
    def rows(self) -> tuple[int, int] | None:
        """Trained on, and left out."""
        found = _ROWS.search(self.card)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def kept(self) -> int | None:
        """The step whose weights were kept."""
        found = _KEPT.search(self.card)
        return int(found[1]) if found else None

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What the recipe said, all sections; empty for the instruments, and where nothing was begun."""
        file = self.folder / "run" / IDENTITY
        found: dict[str, Any] = orjson.loads(file.read_bytes())["recipe"] if file.is_file() else {}
        return found

    @functools.cached_property
    def curve(self) -> list[dict[str, Any]]:
        return list(Curve(self.folder / "run").rows())

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """kind: train or held."""
        return [row for row in self.curve if row.get("kind") == kind]

    @property
    def steps(self) -> int:
        return max((row["step"] for row in self.curve), default=0)

    @property
    def rewards(self) -> list[str]:
        """Names of the rewards that the curve has, by name."""
        return sorted({found[1] for row in self.of_kind("train") for key in row if (found := _REWARD.fullmatch(key))})

    @property
    def shares(self) -> Shares | None:
        """None for a stage that logs no time of its steps."""
        timed = [row for row in self.of_kind("train") if "step_time" in row]
        if not timed:
            return None
        reward = [sum(seconds for key, seconds in row.items() if key.startswith(_REWARD_S)) for row in timed]
        generation = [row.get("seconds/generation", 0.0) for row in timed]
        return Shares(*(float(sum(each) / len(timed)) for each in ([row["step_time"] for row in timed], generation, reward)))

    @property
    def curve_s(self) -> float | None:
        """Seconds of all steps and scores, which is less than the whole command took; None where steps are not timed."""
        found = self.shares
        return None if found is None else found.step * self.steps + sum(row["seconds"] for row in self.of_kind("held"))

    @property
    def memory_mb(self) -> float | None:
        """The most that the curve has; None where it has none."""
        return max((row["memory_mb"] for row in self.curve if "memory_mb" in row), default=None)

    @property
    def parameters(self) -> int | None:
        """Of the weights in the folder, an adapter's own where it is one; None without weights."""
        return parameters(self.folder)


def parameters(folder: Path) -> int | None:
    """Numbers in the safetensors files of `folder`; None where it has none."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, "np") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 - no mapping
    return total if files else None


def series(rows: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and figures of the rows that have `key`."""
    found = [(row["step"], float(row[key])) for row in rows if key in row]
    return [step for step, _ in found], [figure for _, figure in found]
