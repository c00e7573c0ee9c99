"""What every stage of training is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visa_proxy.rewriter.prompt import render
from visa_proxy.training.rewards.scorer import Scorer
from visa_proxy.training.tuning import adapters, models
from visa_proxy.training.tuning.arguments import Method
from visa_proxy.training.tuning.recipe import Lora, RecipeBase, trainer_arguments
from visa_proxy.training.tuning.record import Curve
from visa_proxy.training.tuning.targets import Aims
from visa_proxy.training.tuning.tasks import Task
from visa_proxy.values import ValueVector, load_space


@dataclass(frozen=True)
class Stage:
    """One run of one method."""

    method: Method
    recipe: RecipeBase
    name: str
    """Of the recipe: a bundled one, or a file."""
    begin: models.Start
    tokenizer: Any
    train: list[Task]
    aims: Aims
    scorer: Scorer
    run: Path
    """Checkpoints, curve, pairs."""
    curve: Curve
    lora: Lora | None
    report_to: str
    callbacks: list[Any] = field(default_factory=list)

    def arguments(self, **more: Any) -> Any:
        """TRL's config with what the recipe leaves to the command. Raises ConfigError."""
        return trainer_arguments(self.recipe, self.method, self.name, **self.ours(), **more)

    def ours(self) -> dict[str, Any]:
        return {
            "output_dir": str(self.run),
            "seed": self.recipe.seed,
            "report_to": [] if self.report_to == "none" else [self.report_to],
            "run_name": f"{self.method} {self.run.parent.name}",
            "save_strategy": "steps",
            "save_steps": self.recipe.held.every,
            "disable_tqdm": True,
            "eval_strategy": "no",
        }

    @property
    def longest(self) -> int:
        """Tokens of a sequence: prompt and completion at their limits, and what all prompts begin with."""
        empty = render(self.recipe.prompt, query="", text="", target=ValueVector.zero(load_space("schwartz")))
        ids = self.tokenizer.apply_chat_template(
            empty, add_generation_prompt=True, tokenize=True, return_dict=True, **self.recipe.chat_template
        )["input_ids"]
        return len(ids) + self.recipe.max_prompt_tokens + self.recipe.max_completion_tokens

    def model(self) -> Any:
        """The weights to begin with."""
        options = getattr(getattr(self.recipe, self.method), "model_init_kwargs", None)
        return models.model_of(self.begin, options)

    def adapter(self) -> Any:
        """PEFT's config for a new adapter; None where all weights are trained, or an adapter is trained on."""
        return adapters.config(self.lora) if self.lora is not None and not self.begin.adapter else None
