"""The score while training: greedy rewrites of held-out rows, graded as rewards are; the best weights are kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.rewards.grader import Case, Grade
from visa_proxy.training.rewards.scorer import Scorer
from visa_proxy.training.tuning.progress import Table
from visa_proxy.training.tuning.prompts import prompt
from visa_proxy.training.tuning.recipe import RecipeBase
from visa_proxy.training.tuning.record import Curve, best_folder, peak_mb, prune_best
from visa_proxy.training.tuning.sampling import sample


def figures(grades: Sequence[Grade], bounds: Bounds) -> dict[str, float]:
    """Means over the rows; success: share of joint successes, 0 … 1."""
    count = max(1, len(grades))
    sums = {
        "success": sum(grade.success(bounds) for grade in grades),
        "value": sum(grade.value for grade in grades),
        "consistency": sum(grade.consistency for grade in grades),
        "l2": sum(grade.l2 for grade in grades),
        "nearer": sum(grade.nearer for grade in grades),
        "intact": sum(grade.intact for grade in grades),
        "form": sum(not grade.faults for grade in grades),
        "length": sum(grade.length for grade in grades),
    }
    return {name: round(total / count, 6) for name, total in sums.items()}


def rank(row: dict[str, Any]) -> tuple[float, float]:
    """What makes one score better than another: joint success, then both objectives together."""
    return row["success"], row["value"] + row["consistency"]


class HeldOut(TrainerCallback):  # type: ignore[misc]
    """Scores before the first step, every `held.every` steps and at the end, and saves what is best so far in `run`."""

    def __init__(self, cases: Sequence[Case], scorer: Scorer, recipe: RecipeBase, curve: Curve, table: Table, run: Path) -> None:
        self._cases = cases
        self._prompts = [prompt(case, recipe.prompt) for case in cases]
        self._scorer = scorer
        self._recipe = recipe
        self._curve = curve
        self._table = table
        self._run = run
        self.trainer: Any = None
        """Set once it is built."""

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the curve with the best score, the first of several; None before the first."""
        rows = self._curve.held()
        return max(rows, key=rank) if rows else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 0:
            self._score(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step % self._recipe.held.every == 0 or state.global_step == state.max_steps:
            self._score(state)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        # Only now: a run that is killed earlier goes on from an older checkpoint, whose best must still be there.
        if state.is_world_process_zero and (best := self.best) is not None:
            prune_best(self._run, best["step"])

    def _score(self, state: Any) -> None:
        """All processes take part: the weights may be spread over them. The main one writes."""
        started = time.perf_counter()
        before = self.best
        found = self.measured()
        seconds = round(time.perf_counter() - started, 3)
        row: dict[str, Any] = {"kind": "held", "step": state.global_step, **found, "seconds": seconds}
        if before is None or rank(row) > rank(before):
            self.trainer.save_model(str(best_folder(self._run, state.global_step)))
        if state.is_world_process_zero:
            self._curve.append(row)
            self._table.scored(row)
        self.trainer.accelerator.wait_for_everyone()

    def measured(self) -> dict[str, float]:
        """The figures of the model as it is."""
        trainer, recipe = self.trainer, self._recipe
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            texts = sample(
                model,
                trainer.processing_class,
                self._prompts,
                limit=recipe.max_completion_tokens,
                batch=recipe.held.batch,
                template=recipe.chat_template,
            )
        return figures(self._scorer(self._cases, texts), recipe.held.bounds)


class Log(TrainerCallback):  # type: ignore[misc]
    """Every log of the trainer goes to the curve and the table."""

    def __init__(self, curve: Curve, table: Table) -> None:
        self._curve = curve
        self._table = table

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.is_world_process_zero:
            self._table.begin(state.max_steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float) and math.isfinite(value)}
        if "train_runtime" not in numbers:
            self._curve.append({"kind": "train", "step": state.global_step, **numbers, "memory_mb": peak_mb()})
            self._table.logged(state.global_step, numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._table.end()
