"""`visa-proxy train` and `visa-proxy data` on small public sets: a run that is killed comes to the same end, and nothing held out is seen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from visa_proxy.cli.main import cli
from visa_proxy.demo.base import load_entries
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.annotated import bundled, parts
from visa_proxy.training.facts_written import rewrites
from visa_proxy.training.labelled import Part
from visa_proxy.training.translator import written
from visa_proxy.values import load_space

RECIPE = """\
fit: {layers: 1, epochs: 2, batch: 32}
groups: 10
negatives: 2
snli: 20
mnli: 0
conjnli: 0
written_repeat: 0
validation: 0.1
validation_groups: 4
"""
NLI = (("A man sleeps on a bench .", "A man is asleep .", "entailment"), ("A dog runs .", "A cat runs .", "contradiction"))
COMMAND = [sys.executable, "-m", "visa_proxy"]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the public sets in their own formats: the sample answers as dolly's, a few rows of the others."""
    folder = tmp_path_factory.mktemp("public")
    for name in ("dolly", "e-snli", "mnli-llmsknow", "conjnli", "fulcra", "touche23-valueeval"):
        (folder / name).mkdir()
    rows = [{"instruction": e.question, "context": "", "response": e.answer, "category": "qa"} for e in load_entries()]
    (folder / "dolly" / "part.json").write_text(json.dumps(rows), encoding="utf-8")
    for part in ("dev", "test"):
        for i, column in enumerate(("s1", "s2", "labels")):
            lines = [f"{row[i]}\n" for row in NLI for _ in range(40)]
            (folder / "e-snli" / f"{column}.{part}").write_text("".join(lines), encoding="utf-8")
    (folder / "mnli-llmsknow" / "mnli_train.csv").write_text("Question,Answer,Origin\n", encoding="utf-8")
    (folder / "conjnli" / "adversarial_train_15k.tsv").write_text("Premise\tHypothesis\tLabel\n", encoding="utf-8")
    talk = {"dialogue": "Human: May I steal it?\nBob: No. Theft hurts people.", "value_types": ["benevolence: +1"]}
    (folder / "fulcra" / "part.jsonl").write_text(json.dumps(talk) + "\n", encoding="utf-8")
    arguments = "Argument ID\tConclusion\tStance\tPremise\nA1\tWe should ban cars\tagainst\tCars keep us free.\n"
    (folder / "touche23-valueeval" / "arguments-training.tsv").write_text(arguments, encoding="utf-8")
    (folder / "touche23-valueeval" / "labels-training.tsv").write_text("Argument ID\tStimulation\nA1\t1\n", encoding="utf-8")
    return folder


def train(public: Path, recipe: Path, out: Path) -> list[str]:
    arguments = ["train", "facts", "--data", str(public), "--recipe", str(recipe), "--out", str(out)]
    return [*COMMAND, *arguments]


@pytest.mark.timeout(600)  # three runs, each with a limit of its own
def test_a_run_that_was_killed_goes_on_after_its_last_epoch_and_ends_the_same(public: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = CliRunner().invoke(cli, train(public, recipe, whole)[len(COMMAND) :])
    assert done.exit_code == 0, done.output
    assert [f"epoch {i}" in done.stdout for i in (1, 2)] == [True] * 2

    with subprocess.Popen(train(public, recipe, cut), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 150
        while not (cut / "checkpoint.pt").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (cut / "model.safetensors").exists()
    again = subprocess.run(train(public, recipe, cut), capture_output=True, text=True, check=False, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "epoch 1" not in again.stdout and "epoch 2" in again.stdout
    assert not (cut / "checkpoint.pt").exists()
    assert "Honest rewrites that pass" in (cut / "MODEL_CARD.md").read_text(encoding="utf-8")
    # Not to the bit: what the frozen layers make of a text is computed along with other texts after a restart.
    first, second = (figures(each.stdout) for each in (done, again))
    assert second == pytest.approx(first, abs=0.02)


def figures(output: str) -> list[float]:
    """Loss and validation score of the last epoch."""
    (line,) = [line for line in output.splitlines() if "epoch 2" in line]
    return [float(word) for word in re.findall(r"\d+\.\d+", line)]


@pytest.mark.parametrize("name", ["detector", "translator", "facts"])
def test_the_training_set_holds_nothing_that_is_held_out(public: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "rows.jsonl"
    command = [*COMMAND, "data", name, "--data", str(public), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert f"wrote {out}: {len(rows)} rows" in done.stdout and len(rows) > 1000
    seen = set(strings(rows))
    assert sum(sentence in seen for sentence in sentences(name, "train")) > 500
    assert len(sentences(name, "test")) > 100
    assert not [sentence for sentence in sentences(name, "test") if sentence in seen]


def sentences(name: str, part: Part) -> list[str]:
    """The longer ones of what was written by hand for this part."""
    texts = {
        "detector": lambda: [row.answer for row in parts(bundled(load_space("schwartz")))[part]],
        "translator": lambda: [" ".join(request.text.split()) for request in written(part)],
        "facts": lambda: [each.text for each in rewrites(part)],
    }[name]()
    found = texts if name == "translator" else [sentence for text in texts for sentence in split_sentences(text)]
    return [sentence for sentence in found if len(sentence.split()) >= 8]


def strings(value: Any) -> Iterator[str]:
    """All there are in parsed JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def run(*arguments: str | Path) -> tuple[int, str]:
    """Status and standard error."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=100)
    return done.returncode, done.stderr


def test_where_a_training_set_cannot_be_written_nothing_stays(public: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "full").symlink_to("/dev/full")
    for out, said in {
        "nowhere/rows.jsonl": "nowhere/rows.jsonl.part: No such file or directory; allowed: ",
        "x" * 300: "File name too long; allowed: ",
        "pipe": "pipe is no regular file; allowed: ",
        "full": "full is no regular file; allowed: ",
        "/dev/full": "/dev/full is no regular file; allowed: ",
    }.items():
        status, error = run("data", "facts", "--data", public, "--out", tmp_path / out)
        assert status == 2 and error.startswith("visa-proxy: ") and error.count("\n") == 1 and said in error, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "pipe"]


def test_a_training_set_that_fails_half_way_leaves_what_was_there(public: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    out.write_text("before\n")
    recipe.write_text("nonsense: 1\n")
    for data, how in ((tmp_path, "bundled"), (public, recipe)):
        assert run("data", "facts", "--data", data, "--out", out, "--recipe", how)[0] == 2
    command = f"ulimit -f 8; exec {' '.join(COMMAND)} data facts --data {public} --out {out}"  # of 1024 bytes, as a full disk is
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and f"{out}: File too large; allowed: " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "rows.jsonl"]
    assert out.read_text() == "before\n"


@pytest.mark.parametrize("seed", ["-1", str(2**32), "1" * 23, "x"])
@pytest.mark.parametrize("command", ["train detector", "train translator", "train facts", "train space", "data facts"])
def test_seeds_that_are_none(command: str, seed: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--seed", seed])
    assert result.exit_code == 2 and "Invalid value for '--seed'" in result.stderr


def test_missing_data_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "train", "detector", "--data", str(tmp_path), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("visa-proxy: ") and str(tmp_path) in done.stderr
    assert not (tmp_path / "out").exists()
