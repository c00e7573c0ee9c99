"""A trainer's own arguments as a section of a recipe: names and types are those of its config class, unknown keys are refused."""

from __future__ import annotations

import dataclasses
import os
import typing
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, create_model

from visa_proxy.optional import need

Method = Literal["sft", "grpo", "dpo", "simpo"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
CLASSES: Final[dict[Method, tuple[str, str]]] = {
    "sft": ("trl.trainer.sft_config", "SFTConfig"),
    "grpo": ("trl.trainer.grpo_config", "GRPOConfig"),
    "dpo": ("trl.trainer.dpo_config", "DPOConfig"),
    "simpo": ("trl.experimental.cpo.cpo_config", "CPOConfig"),  # SimPO is a loss of CPO's trainer
}
OURS: Final = frozenset(
    """output_dir seed data_seed report_to run_name logging_dir resume_from_checkpoint do_train do_eval do_predict eval_strategy
    eval_steps save_strategy save_steps load_best_model_at_end metric_for_best_model disable_tqdm remove_unused_columns reward_weights
    max_length max_completion_length loss_type_of_simpo trust_remote_code push_to_hub hub_model_id hub_strategy hub_token
    hub_private_repo hub_always_push hub_revision log_completions_hub_repo dataset_text_field dataset_kwargs""".split()
)
"""What the command, the recipe's other keys and the house rules (nothing runs that a model brings along, nothing is uploaded) decide."""


def config_class(method: Method) -> Any:
    """TRL's config class. Raises MissingExtra without TRL."""
    module, name = CLASSES[method]
    # The notice that SimPO's trainer may move has no reader here: versions are pinned, and a test trains with it.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    return getattr(need(module, extra="train"), name)


def arguments(method: Method) -> type[BaseModel]:
    """The schema of the section `method`: every argument of the config class that is not one of `OURS`."""
    cls = config_class(method)
    hints = typing.get_type_hints(cls)
    named = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in OURS]
    fields: dict[str, Any] = {name: (hints[name] | None, None) for name in named}
    # Strict would refuse 1 for 1.0; what the values mean is checked by the class itself.
    return create_model(f"{cls.__name__}Section", __config__=ConfigDict(frozen=True, extra="forbid"), **fields)


def given(section: BaseModel) -> dict[str, Any]:
    """What the recipe says; everything else is the class's own default."""
    return {name: getattr(section, name) for name in section.model_fields_set}
