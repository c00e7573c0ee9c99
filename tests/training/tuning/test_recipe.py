"""Recipes: those of the package hold, the paper's says what the paper says, and a wrong one is named by file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl")

from tests.fakes.tuning import recipe_file
from visa_proxy.errors import ConfigError
from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.tuning.arguments import METHODS, Method
from visa_proxy.training.tuning.recipe import BUNDLED, FOLDER, load, trainer_arguments

CPU = {"output_dir": "unused", "use_cpu": True, "report_to": []}


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("method", METHODS)
def test_the_recipes_of_the_package_are_valid(name: str, method: Method) -> None:
    recipe = load(name, method)
    found = trainer_arguments(recipe, method, name, **CPU)
    assert getattr(found, "loss_type", None) == "simpo" if method == "simpo" else True


def test_the_papers_recipe_is_its_table_4() -> None:
    sft, grpo = (trainer_arguments(load("paper", method), method, "paper", **CPU) for method in ("sft", "grpo"))
    recipe: Any = load("paper", "sft")
    assert (sft.learning_rate, sft.lr_scheduler_type, sft.warmup_steps, sft.num_train_epochs) == (1e-5, "cosine", 0.1, 2)
    assert (sft.per_device_train_batch_size, sft.gradient_accumulation_steps, sft.bf16) == (16, 1, True)
    assert (recipe.max_prompt_tokens, recipe.max_completion_tokens) == (512, 1536)
    assert recipe.max_prompt_tokens + recipe.max_completion_tokens == 2048
    assert (grpo.num_train_epochs, grpo.per_device_train_batch_size, grpo.gradient_accumulation_steps) == (2, 16, 8)
    assert (grpo.num_generations, grpo.bf16, grpo.optim) == (8, True, "adamw_torch")
    assert (grpo.use_vllm, grpo.vllm_mode, grpo.vllm_gpu_memory_utilization) == (True, "colocate", 0.45)
    assert (recipe.reward.scalarisation, recipe.reward.value, recipe.reward.semantic) == ("fixed", 1.0, 1.0)
    zero = yaml.safe_load((FOLDER / "zero3.yaml").read_text(encoding="utf-8"))
    assert zero["deepspeed_config"]["zero_stage"] == 3 and zero["mixed_precision"] == "bf16"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("learning_rate: 0.001, beta", "learning_rat: 0.001, beta"),
            "grpo.learning_rat: unknown key; did you mean 'learning_rate'? ",
        ),
        (("learning_rate: 0.001, beta", "learning_rate: fast, beta"), "grpo.learning_rate: found 'fast', allowed: "),
        (("learning_rate: 0.001, beta", "output_dir: /x, beta"), "grpo.output_dir: it is set by the command"),
        (("learning_rate: 0.001, beta", "trust_remote_code: true, beta"), "grpo.trust_remote_code: it is set by the command"),
        (("prompt: compact", "promt: compact"), "promt: unknown key; did you mean 'prompt'?"),
        (("prompt: compact", "prompt: short"), "prompt: found 'short', allowed: 'full' or 'compact'"),
        (("gates: [form,", "gates: [forn,"), "reward.gates[0]: found 'forn', allowed: 'form', 'length' or 'placeholders'"),
        (("every: 2", "every: 0"), "held.every: found 0, allowed: a whole number ≥ 1"),
        (("every: 2", "every: 2, nearer: -1"), "held.nearer: found -1, allowed: a number ≥ 0"),
        (("prompt: compact", "prompt: compact\nlora: {rank: 12}"), "lora.rank: found 12, allowed: 1, 8, 16"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    file = recipe_file(tmp_path / "mine.yaml", change)
    with pytest.raises(ConfigError) as caught:
        load(str(file), "grpo")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:") and said in problem and len(problem) < 400


def test_what_a_joint_success_is_can_be_said(tmp_path: Path) -> None:
    file = recipe_file(tmp_path / "mine.yaml", ("every: 2", "every: 2, value: 0.1, consistency: 0.2, nearer: 0.3"))
    assert load(str(file), "grpo").held.bounds == Bounds(value=0.1, consistency=0.2, nearer=0.3)
    assert load("bundled", "grpo").held.bounds == Bounds()


def test_values_that_do_not_go_together_are_refused_with_the_trainers_reason(tmp_path: Path) -> None:
    file = recipe_file(tmp_path / "mine.yaml", ("num_generations: 4", "num_generations: 3"))
    with pytest.raises(ConfigError, match=r"mine.yaml: grpo: .*divisible by num_generations"):
        trainer_arguments(load(str(file), "grpo"), "grpo", str(file), **CPU)


def test_a_section_that_is_missing_or_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("prompt: compact\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="dpo: required key is missing"):
        load(str(file), "dpo")
    with pytest.raises(ConfigError, match="allowed: a YAML file, or the word bundled"):
        load(str(tmp_path / "none.yaml"), "dpo")
