"""SFT, the cold start: written rewrites, learnt as they are (paper, section 3.2, App. E Table 4, phase 1)."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import SFTTrainer

from visa_proxy.training.tuning.prompts import hidden, prompt
from visa_proxy.training.tuning.stage import Stage


def build(stage: Stage) -> Any:
    """TRL's trainer: loss on the rewrite alone, not on the prompt."""
    recipe = stage.recipe
    cases = stage.scorer.run(stage.aims.cases(stage.train))
    rows = [
        {
            "prompt": prompt(case, recipe.prompt),
            "completion": [{"role": "assistant", "content": hidden(case.protected, task.rewrite)}],
            **({"chat_template_kwargs": recipe.chat_template} if recipe.chat_template else {}),
        }
        for task, case in zip(stage.train, cases, strict=True)
    ]
    return SFTTrainer(
        model=stage.model(),
        args=stage.arguments(max_length=stage.longest),
        train_dataset=Dataset.from_list(rows),
        processing_class=stage.tokenizer,
        callbacks=stage.callbacks,
        peft_config=stage.adapter(),
    )
