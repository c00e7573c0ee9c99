"""GRPO on the composite reward (paper, Algorithm 1, App. E Table 4, phase 2)."""

from __future__ import annotations

import time
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOTrainer

from visa_proxy.training.rewards.scalar import OBJECTIVES, RewardRecipe, adapted
from visa_proxy.training.tuning.prompts import OnTheFly
from visa_proxy.training.tuning.record import Curve
from visa_proxy.training.tuning.stage import Stage


class TimedTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, which also logs what generation takes of a step; the rewards log their own share."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        found = super()._generate_single_turn(*args, **kwargs)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["seconds/generation"].append(time.perf_counter() - started)
        return found


class AdaptiveWeights(TrainerCallback):  # type: ignore[misc]
    """Moves the weights of the two objectives towards the one that lags, by the means that TRL gathers over all processes."""

    def __init__(self, recipe: RewardRecipe, curve: Curve) -> None:
        self._recipe = recipe
        self._curve = curve
        self._means: dict[str, float] = {}
        self.trainer: Any = None
        """Set once it is built."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        # A run that goes on finds its running means by going through the curve again.
        for row in self._curve.rows():
            if row["step"] <= state.global_step:
                self._take(row)
        self._set()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        if self._take(logs or {}):
            self._set()

    def _take(self, logs: dict[str, Any]) -> bool:
        found = {name: logs.get(f"rewards/{name}/mean") for name in OBJECTIVES}
        if any(mean is None for mean in found.values()):
            return False
        keep = self._recipe.memory
        for name, mean in found.items():
            self._means[name] = keep * self._means.get(name, float(mean)) + (1 - keep) * float(mean)  # type: ignore[arg-type]
        return True

    def _set(self) -> None:
        if self._means:
            for name, weight in adapted(self._recipe, self._means).items():
                self.trainer.reward_weights[self.trainer.reward_func_names.index(name)] = weight


def build(stage: Stage) -> Any:
    """TRL's trainer, with targets made when a step asks for its rows."""
    recipe = stage.recipe
    rewards, weights = recipe.reward.build(stage.scorer)
    data = Dataset.from_dict({"row": list(range(len(stage.train)))})
    data.set_transform(OnTheFly(stage.train, stage.aims, stage.scorer.run, recipe.prompt))
    more: dict[str, Any] = {"chat_template_kwargs": recipe.chat_template} if recipe.chat_template else {}
    callbacks = list(stage.callbacks)
    adaptive = AdaptiveWeights(recipe.reward, stage.curve) if recipe.reward.scalarisation == "adaptive" else None
    if adaptive is not None:
        callbacks.insert(0, adaptive)
    trainer = TimedTrainer(
        model=stage.model(),
        reward_funcs=rewards,
        args=stage.arguments(max_completion_length=recipe.max_completion_tokens, reward_weights=weights, **more),
        train_dataset=data,
        processing_class=stage.tokenizer,
        callbacks=callbacks,
        peft_config=stage.adapter(),
    )
    if adaptive is not None:
        adaptive.trainer = trainer
    return trainer
