"""DPO and SimPO, the paper's baselines, on pairs that the reward ranks (paper, section 4.5, App. E.3)."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from datasets import Dataset

from visa_proxy.errors import ConfigError
from visa_proxy.training.tuning.pairs import FILE, ranked_pairs
from visa_proxy.training.tuning.prompts import prompt
from visa_proxy.training.tuning.stage import Stage


def build(stage: Stage) -> Any:
    """TRL's trainer for `stage.method`. Raises ConfigError where no two samples of any prompt differ enough."""
    model = stage.model()
    with PartialState().main_process_first():
        data = Dataset.from_list(_rows(stage, model.to(PartialState().device)))
    shared: dict[str, Any] = {
        "model": model,
        "train_dataset": data,
        "processing_class": stage.tokenizer,
        "callbacks": stage.callbacks,
        "peft_config": stage.adapter(),
    }
    if stage.method == "dpo":
        from trl import DPOTrainer

        return DPOTrainer(args=stage.arguments(max_length=stage.longest), **shared)
    from trl.experimental.cpo import CPOTrainer

    return CPOTrainer(args=stage.arguments(max_length=stage.longest, remove_unused_columns=False), **shared)


def _rows(stage: Stage, model: Any) -> list[dict[str, Any]]:
    pairs = ranked_pairs(stage, model)
    if not pairs:
        settings = stage.recipe.pairs
        raise ConfigError(
            [
                f"{stage.run / FILE}: no pair: the samples of no prompt differ by the margin {settings.margin:g}; "
                f"allowed: a smaller pairs.margin, a higher pairs.temperature (now {settings.temperature:g}), more pairs.samples"
            ]
        )
    tasks = {task.id: task for task in stage.train}
    cases = stage.scorer.run(stage.aims.cases([tasks[pair.id] for pair in pairs]))
    return [
        {
            "prompt": prompt(case, stage.recipe.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair, case in zip(pairs, cases, strict=True)
    ]
