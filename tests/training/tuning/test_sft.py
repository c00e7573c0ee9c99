"""SFT with TRL's trainer: it learns the rewrites, not the prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.fakes.tuning import curve, recipe_file, tiny_model, triplets_file
from visa_proxy.server.components import Instruments
from visa_proxy.training.rewards.grader import Grader
from visa_proxy.training.rewards.scorer import Instruments as Graders
from visa_proxy.training.tuning.run import Job, tune


@pytest.fixture
def asked(tmp_path: Path, instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(Graders, "open", lambda self: Grader(instruments.detector, instruments.facts))
    changes = (
        ("max_steps: 4, per", "max_steps: 8, per"),
        ("rows: 4, every: 2", "rows: 2, every: 4"),
    )
    recipe = recipe_file(tmp_path / "recipe.yaml", *changes)
    model = tiny_model(tmp_path / "tiny")
    return Job("sft", str(recipe), triplets_file(tmp_path / "t.jsonl"), str(model), tmp_path / "out")


def test_it_learns_and_leaves_a_model(asked: Job) -> None:
    result = tune(asked)
    losses = [row["loss"] for row in curve(asked.out, "train") if "loss" in row]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.2
    assert [row["step"] for row in curve(asked.out, "held")] == [0, 4, 8]
    assert result.left_out == 0 and (asked.out / "model.safetensors").is_file()


def test_the_loss_is_on_the_rewrite_alone(asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from visa_proxy.training.tuning import sft

    built = []
    build = sft.build

    def spied(stage: object) -> object:
        built.append(build(stage))  # type: ignore[arg-type]
        return built[0]

    monkeypatch.setattr(sft, "build", spied)
    tune(replace(asked, data=triplets_file(asked.data, 12)))
    (trainer,) = built
    batch = trainer.data_collator([trainer.train_dataset[0]])
    learnt = trainer.processing_class.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    whole = trainer.processing_class.decode(batch["input_ids"][0])
    assert learnt.rstrip().endswith("<|end|>") and learnt in whole
    assert whole.startswith("<|user|>\n") and "<|user|>" not in learnt and not learnt.startswith("<|assistant|>")
