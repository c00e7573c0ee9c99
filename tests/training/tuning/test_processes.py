"""The same command in two processes under torchrun: one writes, both train."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.fakes.tuning import curve, recipe_file, tiny_model, triplets_file

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "visa_proxy"]


def test_two_processes_leave_one_model(tmp_path: Path) -> None:
    changes = (
        ("beta: 0.01, max_steps: 4", "beta: 0.01, max_steps: 2"),
        ("bf16: false", "bf16: true"),  # which TRL takes for a GPU's, unless it is told that there is none
        ("device_train_batch_size: 8", "device_train_batch_size: 4"),
    )
    recipe = recipe_file(tmp_path / "recipe.yaml", *changes)
    model, data, out = tiny_model(tmp_path / "tiny"), triplets_file(tmp_path / "t.jsonl", 12), tmp_path / "out"
    options = {"--data": data, "--recipe": recipe, "--model": model, "--out": out, "--threads": 1}
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run([*LAUNCH, "train", "grpo", *words], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"wrote {out}") == 1
    assert [row["step"] for row in curve(out, "train")] == [1, 2] and [row["step"] for row in curve(out, "held")] == [0, 2]
    # Eight completions a step, four from each process.
    first = curve(out, "train")[0]
    assert first["num_tokens"] > 8 * first["completions/mean_length"] > 4 * 160
    assert (out / "model.safetensors").is_file()
