"""`visa-proxy train sft|grpo|dpo|simpo`: what is wrong is one line before anything starts, and a killed run comes to the same end."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("trl")

from tests.fakes.pages import blocks
from tests.fakes.tuning import curve, recipe_file, tiny_model, triplets_file
from visa_proxy.cli.main import cli
from visa_proxy.cli.train import train

COMMAND = [sys.executable, "-m", "visa_proxy", "train", "grpo"]
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
POLICIES = Path(__file__).parents[2] / "policies"


def grpo(folder: Path, out: str) -> list[str]:
    options = {
        "--data": folder / "t.jsonl",
        "--recipe": folder / "recipe.yaml",
        "--model": folder / "tiny",
        "--out": folder / out,
    }
    return [*COMMAND, *(str(part) for pair in options.items() for part in pair), "--threads", "1"]


def test_a_run_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    recipe_file(tmp_path / "recipe.yaml", ("beta: 0.01, max_steps: 4", "beta: 0.01, max_steps: 5"))
    triplets_file(tmp_path / "t.jsonl")
    tiny_model(tmp_path / "tiny")
    done = CliRunner().invoke(cli, grpo(tmp_path, "whole")[3:])
    assert done.exit_code == 0, done.output
    assert "step 5" in done.stderr and "joint success" in done.stderr and "wrote" in done.stdout

    cut = tmp_path / "cut" / "run"
    with subprocess.Popen(grpo(tmp_path, "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 150
        while '"step":3' not in ((cut / "curve.jsonl").read_text(encoding="utf-8") if (cut / "curve.jsonl").is_file() else ""):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    again = subprocess.run(grpo(tmp_path, "cut"), capture_output=True, text=True, check=False, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "step 1 " not in again.stderr and "step 5 " in again.stderr

    for kind, keys in (("train", ("reward", "loss", "kl")), ("held", ("success", "value", "consistency"))):
        first, second = curve(tmp_path / "whole", kind), curve(tmp_path / "cut", kind)
        assert [row["step"] for row in first] == [row["step"] for row in second]
        for a, b in zip(first, second, strict=True):
            assert [b[key] for key in keys] == pytest.approx([a[key] for key in keys], abs=1e-3)

    # The same folder for another recipe is refused, unless it is to begin anew.
    recipe_file(tmp_path / "recipe.yaml", ("beta: 0.01, max_steps: 4", "beta: 0.02, max_steps: 5"))
    other = CliRunner().invoke(cli, grpo(tmp_path, "cut")[3:])
    assert other.exit_code == 2 and "was begun with another recipe; --fresh begins anew" in other.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "none.yaml"], "none.yaml:1:1: cannot be read"),
        (["--model", "nowhere"], "--model nowhere: no such folder"),
        (["--tenant", "acme"], "no tenant 'acme'; allowed: acme-outdoors, hartwell-mutual, pebble-and-friends"),
        (["--recipe", "paper"], "paper.yaml: grpo.use_vllm: vllm is not installed"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_starts(tmp_path: Path, options: list[str], said: str) -> None:
    data, out = triplets_file(tmp_path / "t.jsonl", 10), tmp_path / "out"
    arguments = ["train", "grpo", "--data", str(data), "--out", str(out), "--policies", str(POLICIES), *options]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2 and said in found.output, found.output
    assert len(found.output.strip().splitlines()) == 1 and not list(out.glob("*.safetensors"))


def test_a_wrong_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no policies, which nobody asked for
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"query": "Q?", "answer": "", "instruction": "Be bold."}) + "\n", encoding="utf-8")
    found = CliRunner().invoke(cli, ["train", "dpo", "--data", str(data), "--out", str(tmp_path / "out")])
    assert found.exit_code == 2 and f"{data}, line 1: answer: found '', allowed: a text that is not empty" in found.output


def test_every_method_has_a_command() -> None:
    found = CliRunner().invoke(cli, ["train", "--help"])
    assert all(f"\n  {name} " in found.output for name in ("sft", "grpo", "dpo", "simpo", "detector", "rewriter"))


def test_the_commands_of_the_page_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triplets_file(tmp_path / "triplets.jsonl", 10)
    shutil.copytree(POLICIES, tmp_path / "policies")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(PAGE) if block.language == "sh" for line in block.text.splitlines()]
    asked = [shlex.split(line) for line in lines if line.startswith("visa-proxy train ")]
    assert [words[2] for words in asked] == ["sft", "grpo", "grpo"]
    for words in asked:
        context = train.commands[words[2]].make_context(words[2], words[3:])
        assert context.params["data"] == Path("triplets.jsonl") and context.params["recipe"] == "bundled"
