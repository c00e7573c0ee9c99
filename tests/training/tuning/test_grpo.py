"""GRPO with TRL's trainer, the real instruments and a real small model: what is logged, rewarded, saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from tests.fakes.needed import needs
from tests.fakes.tuning import curve, recipe_file, tiny_model, triplets_file
from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policy
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.server.components import Instruments
from visa_proxy.training.rewards.grader import Grader
from visa_proxy.training.rewards.scorer import Instruments as Graders
from visa_proxy.training.tuning.run import Job, tune
from visa_proxy.training.tuning.stage import Stage

pytestmark = needs("peft")

ACME = Path(__file__).parents[3] / "policies" / "acme-outdoors.yaml"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def graders(instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> Graders:
    """The instruments that are loaded already."""
    monkeypatch.setattr(Graders, "open", lambda self: Grader(instruments.detector, instruments.facts))
    return Graders()


def job(tmp_path: Path, graders: Graders, model: Path, *changes: tuple[str, str]) -> Job:
    recipe = recipe_file(tmp_path / "recipe.yaml", *changes)
    return Job("grpo", str(recipe), triplets_file(tmp_path / "t.jsonl"), str(model), tmp_path / "out", instruments=graders)


def test_a_run_of_the_bundled_rewriter(tmp_path: Path, graders: Graders) -> None:
    changes = (("rows: 4, every: 2", "rows: 2, every: 1"), ("beta: 0.01, max_steps: 4", "beta: 0.01, max_steps: 2"))
    asked = job(tmp_path, graders, BUNDLED_MODEL, *changes)
    result = tune(asked)
    steps = curve(asked.out, "train")
    assert [row["step"] for row in steps] == [1, 2]
    first = steps[0]
    # An honest rewriter: its samples keep the meaning, and are no echoes.
    assert first["rewards/semantic/mean"] > 0.4 and first["rewards/form/mean"] > 0.5
    assert -1 <= first["rewards/value/mean"] <= 1 and first["rewards/value/std"] > 0
    weighted = first["rewards/value/mean"] + first["rewards/semantic/mean"]
    gates = sum(first[f"rewards/{gate}/mean"] for gate in ("form", "length", "placeholders"))
    assert first["reward"] == pytest.approx(weighted + 0.5 * gates, abs=1e-4)
    parts = first["seconds/generation"] + sum(value for name, value in first.items() if name.startswith("seconds/reward_"))
    assert first["seconds/generation"] > 0 and parts < first["step_time"]
    assert 100 < first["memory_mb"] <= steps[1]["memory_mb"] < 6000
    held = curve(asked.out, "held")
    assert [row["step"] for row in held] == [0, 1, 2] and result.first == held[0]
    assert result.best == max(held, key=lambda row: (row["success"], row["value"] + row["consistency"]))
    assert result.rows + len({row["id"] for row in map(json.loads, asked.data.read_text().splitlines())}) > result.rows >= 10
    assert result.card is not None and "joint success" in result.card.read_text(encoding="utf-8")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(asked.out)
    assert AutoTokenizer.from_pretrained(asked.out).chat_template
    assert not [path for path in asked.out.rglob("*") if path.suffix in (".bin", ".pkl") and path.parent == asked.out]


def test_a_tenants_adapter_is_what_vllm_loads(tmp_path: Path, graders: Graders, model: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import load_file

    tenant = load_policy(ACME)
    asked = replace(job(tmp_path, graders, model, ("max_steps: 4, num", "max_steps: 2, num")), tenant=tenant)
    result = tune(asked)
    assert result.rows % 3 == 0 and result.rows >= 12  # three profiles
    config = json.loads((asked.out / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["task_type"]) == ("LORA", 16, "CAUSAL_LM")
    weights = load_file(asked.out / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2 and all("lora_" in name for name in weights)
    assert not (asked.out / "model.safetensors").exists()

    # It is trained on from where it ended, as an adapter on the same base.
    more = replace(asked, model=str(asked.out), out=tmp_path / "more")
    tune(more)
    again = json.loads((more.out / "adapter_config.json").read_text(encoding="utf-8"))
    assert again["base_model_name_or_path"] == config["base_model_name_or_path"]


def test_adaptive_weights_move_and_sum_to_the_same(tmp_path: Path, graders: Graders, model: Path) -> None:
    from visa_proxy.training.tuning import grpo

    seen: list[list[float]] = []
    asked = job(tmp_path, graders, model, ("scalarisation: fixed", "scalarisation: adaptive"))
    build = grpo.build

    def spied(stage: Stage) -> Any:
        trainer = build(stage)
        log = trainer.log

        def logged(*args: object, **kwargs: object) -> None:
            log(*args, **kwargs)
            seen.append(trainer.reward_weights[:2].tolist())

        trainer.log = logged
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "build", spied)
        tune(asked)
    assert len(seen) >= 4 and all(sum(weights) == pytest.approx(2.0, abs=1e-4) for weights in seen)
    # Garbage of a new model keeps no meaning: that objective lags more.
    assert seen[0][1] > 1.1 > 0.9 > seen[0][0]


def test_what_cannot_be_trained_is_said_before_anything_is_written(tmp_path: Path, graders: Graders, model: Path) -> None:
    from dataclasses import replace

    asked = job(tmp_path, graders, model, ("max_prompt_tokens: 300", "max_prompt_tokens: 16"))
    with pytest.raises(ConfigError, match=r"no row to train on fits: 24 rows, max_prompt_tokens is 16"):
        tune(asked)
    with pytest.raises(ConfigError, match="sft learns from written rewrites, which a policy has none of"):
        tune(replace(asked, method="sft", tenant=load_policy(ACME)))
    assert not list(asked.out.glob("*.safetensors"))
