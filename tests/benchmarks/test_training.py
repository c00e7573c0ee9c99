"""benchmarks/training.py: from runs and rows on disk to a page whose figures are theirs."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from tests.evaluation.samples import case, row, some_cases, write_cases
from tests.fakes.command import ROOT
from tests.fakes.needed import needs
from tests.fakes.tuning import curve, recipe_file, tiny_model, write_rows
from visa_proxy.cli.main import cli
from visa_proxy.detector.weights import BUNDLED as DETECTOR
from visa_proxy.evaluation.report import About, Result, results
from visa_proxy.evaluation.rows import read_rows
from visa_proxy.evaluation.stats import Bootstrap
from visa_proxy.policy.config import load_config
from visa_proxy.values import load_space

SCRIPTS = ROOT / "benchmarks"
BOUNDS = About("", []).bounds
CASES = 4


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of the script, by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def command(runs: Path, data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPTS / "training.py"), "--runs", str(runs), "--data", str(data), *more]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=200, cwd=runs.parent)


def short(number: int) -> dict[str, Any]:
    """A triplet of few tokens: what new weights sample runs on to the limit."""
    about = {"id": f"t{number}", "topic": f"tea {number}", "split": "train" if number < 12 else "validation", "source": "test"}
    target = {"security": 0.5 if number % 2 else 1.0}
    text = {"query": "How long?", "answer": f"Wait {number + 2} minutes.", "rewrite": f"Carefully wait {number + 2} minutes."}
    return {**about, **text, "values_before": {}, "values_after": target, "target": target}


def trained(folder: Path) -> Path:
    """RUNS with tiny SFT and GRPO runs of four steps, a detector that judges, and a folder of data that has the lexicon alone."""
    runs = folder / "runs"
    runs.mkdir()
    write_rows(runs / "mini.jsonl", [short(number) for number in range(16)])
    recipe = recipe_file(folder / "recipe.yaml", ("max_completion_tokens: 160", "max_completion_tokens: 24"))
    for method, start in (("sft", tiny_model(folder / "tiny")), ("grpo", runs / "sft")):
        given = {"--data": runs / "mini.jsonl", "--recipe": recipe, "--model": start, "--out": runs / method}
        done = CliRunner().invoke(cli, ["train", method, *(str(word) for pair in given.items() for word in pair)])
        assert done.exit_code == 0, done.output
    shutil.copytree(DETECTOR, runs / "judge" / "detector")
    file = folder / "data" / "pyvalues-dictionary" / "en.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({name: [f"{name}word"] for name in load_space("schwartz").names}), encoding="utf-8")
    return runs


def cells(page: str, heading: str, name: str) -> list[str]:
    """Of the row `name` in the first table below `heading`."""
    part = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^\| {name} \|(.*)\|$", part, re.MULTILINE)
    assert found, f"{heading}: {name}\n{page}"
    return [each.strip() for each in found[1].split(" | ")]


@pytest.mark.timeout(240)
@needs("trl")
def test_the_figures_of_the_page_are_those_of_the_files(tmp_path: Path, script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    runs = trained(tmp_path)
    where = script("training_systems").Where(runs, tmp_path / "data", write_cases(tmp_path / "cases.jsonl", some_cases(CASES)))
    left_out = ["mini", "dpo", "simpo", "facts", "shield"]
    script("training").run(where, "bundled", "bundled", [*left_out, "eval"])
    asked = CliRunner().invoke(cli, script("training_systems").words(where))
    assert asked.exit_code == 0, asked.output
    script("training").run(where, "bundled", "bundled", left_out)
    printed = capsys.readouterr().out
    assert all(f"{name}: done, in" in printed for name in ("sft", "grpo", "detector", "eval")) and "dpo: left out" in printed
    page = script("training_page").write(where, tmp_path / "out")
    assert (tmp_path / "out" / "training.md").read_text(encoding="utf-8") == page and str(tmp_path) not in page

    card = (runs / "grpo" / "MODEL_CARD.md").read_text(encoding="utf-8")
    kept = re.search(r"^\| kept \| (\d+) \|", card, re.MULTILINE)
    assert kept
    size = sum(weight.numel() for weight in load_file(runs / "grpo" / "model.safetensors").values())
    rows = re.search(r"(\d+) rows trained on, (\d+) left out", card)
    assert rows
    stage = cells(page, "Stages", "grpo")
    assert stage[:4] == [f"{size:,}".replace(",", " "), f"{rows[1]} ({rows[2]})", f"4 ({kept[1]})", "0"]
    logged = curve(runs / "grpo", "train")
    step = mean(each["step_time"] for each in logged)
    reward = mean(sum(each[key] for key in each if key.startswith("seconds/reward_")) for each in logged)
    assert f"A step of grpo takes {step:.1f} s in the mean" in page and f"reward {reward:.1f} s ({reward / step:.1%})" in page
    minutes = (step * 4 + sum(each["seconds"] for each in curve(runs / "grpo", "held"))) / 60
    assert stage[4] == f"≥ {minutes:.1f}"

    measured = read_rows(runs / "eval" / "rows.jsonl")[0]
    assert len(measured) == 4 * CASES  # answer, before, sft, grpo
    before = [each for each in measured if each["system"].endswith("/before")]
    consistency = mean(each["consistency"] for each in before if "error" not in each)
    assert cells(page, "Consistency and values (table 1)", "before")[0].startswith(f"{consistency:.3f} [")
    report = (runs / "eval" / "report.md").read_text(encoding="utf-8")
    for name in ("answer", "before", "sft", "grpo"):
        for heading in ("Consistency and values (table 1)", "Joint success and more"):
            assert cells(page, heading, name) == cells(report, heading, name)
    assert cells(page, "GRPO beside SFT", "grpo") == cells(report, "Paired tests against sft", "grpo")
    assert "dpo: its folder holds no finished model" in page and "finished: dpo, simpo, facts, mini." in page
    assert (
        "visa-proxy train detector --data DATA --recipe bundled --seed 0\n" in page
        and "--judge-detector RUNS/judge/detector" in page
    )
    assert "the bundled detector, the bundled fact analyzer, and a lexicon" in page and "are flattered" in page

    plots = {f"training-{name}.svg" for name in ("held", "rewards-grpo", "pareto")}
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"training.md", *plots}
    assert all(f"({name})" in page for name in plots)
    assert script("training_page").write(where, tmp_path / "again") == page
    for each in plots:
        ET.parse(tmp_path / "out" / each)
        assert (tmp_path / "out" / each).read_bytes() == (tmp_path / "again" / each).read_bytes()

    # Without a card a run is not finished, its weights are nobody's to compare; the curve is shown.
    (runs / "grpo" / "MODEL_CARD.md").unlink()
    (runs / "grpo" / "run" / "curve.jsonl").open("ab").write(b'{"kind":"train","st')
    shutil.rmtree(runs / "eval")
    page = script("training_page").write(where, tmp_path / "again")
    assert cells(page, "Stages", "grpo")[2] == "4 (not finished)" and "(training-rewards-grpo.svg)" in page
    assert f"sft: {CASES} of {CASES} cases are still to be asked" in page and "grpo: its folder holds no finished model" in page


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    done = command(tmp_path / "runs", tmp_path / "data", "--out", str(tmp_path / "out"), "--only-report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "training.md").read_text(encoding="utf-8")
    assert "finished: sft, grpo, dpo, simpo, detector, facts, mini." in page and "## Stages" not in page
    assert "answer: 300 of 300 cases are still to be asked" in page and not list((tmp_path / "out").glob("*.svg"))
    assert not (tmp_path / "runs").exists()


def test_what_a_stage_took_adds_up(tmp_path: Path, script: Any) -> None:
    spent = script("training_spent")
    words = ["eval", "cases", "--out", str(tmp_path / "cases.jsonl")]
    assert [spent.Journal(tmp_path).run("eval", words, anew=False) for _ in range(2)] == [0, 0]
    twice = spent.Journal(tmp_path).stages["eval"]
    assert twice.runs == 2 and twice.machine == spent.device() and twice.peak_mb > 5
    page = script("training_page").write(script("training_systems").Where(tmp_path, tmp_path / "data"), tmp_path / "out")
    assert cells(page, "Stages", "eval")[4:] == [f"{twice.seconds / 60:.1f}", f"{twice.peak_mb:.0f}", "2", spent.device()]
    assert spent.Journal(tmp_path).run("eval", words, anew=True) == 0
    once = spent.Journal(tmp_path).stages["eval"]
    assert once.runs == 1 and once.seconds > 0


def pair(ours: int, theirs: int, count: int = 20) -> tuple[list[Any], list[Result]]:
    """Two systems that succeed in the first so many of the cases."""
    cases = [case(i, topic=f"topic {i % 5}", power=1.0) for i in range(count)]

    def rows(good: int) -> list[Any]:
        return [row({}, {"power": 0.9 if i < good else -0.9}, 0.9) for i in range(count)]

    return cases, results(cases, {"grpo": ("echo", rows(ours)), "sft": ("echo", rows(theirs))}, BOUNDS)


@pytest.mark.parametrize(("ours", "theirs", "share"), [(15, 10, 0.5), (20, 10, 1.0), (4, 10, -0.6)])
def test_the_share_of_the_gap_that_is_closed(script: Any, ours: int, theirs: int, share: float) -> None:
    cases, found = pair(ours, theirs)
    estimate = Bootstrap([each.topic for each in cases]).estimate(script("training_page").closed(*found))
    assert estimate.value == pytest.approx(share) and estimate.low <= share <= estimate.high
    assert (estimate.low > 0) == (share > 0)


def test_who_is_beaten_in_both_is_not_on_the_front(script: Any) -> None:
    assert script("training_page").front(pair(15, 10)[1]) == ["grpo"]


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (["sft"], "--leave-out sft: grpo needs it, and it is not there"),
        (["mini", "sft", "grpo", "dpo", "simpo", "facts"], "no fulcra/ in it, which detector needs"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(tmp_path: Path, left_out: list[str], said: str) -> None:
    (tmp_path / "data" / "dolly").mkdir(parents=True)
    done = command(tmp_path / "runs", tmp_path / "data", "--out", str(tmp_path / "out"), "--leave-out", *left_out)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()


def test_a_stage_that_fails_ends_the_run_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "data" / "dolly").mkdir(parents=True)
    left_out = ["sft", "grpo", "dpo", "simpo", "detector", "facts", "eval"]
    done = command(tmp_path / "runs", tmp_path / "data", "--out", str(tmp_path / "out"), "--leave-out", *left_out)
    assert done.returncode == 1 and "mini: visa-proxy data mini ended with status 2" in done.stderr
    stages = json.loads((tmp_path / "runs" / "stages.json").read_text(encoding="utf-8"))
    assert stages["mini"]["seconds"] > 0 and stages["mini"]["runs"] == 1 and not (tmp_path / "out").exists()
    assert (tmp_path / "runs" / "before" / "model.safetensors").is_file()


def test_the_shield_serves_the_weights_that_are_there(tmp_path: Path, script: Any) -> None:
    systems = script("training_systems")
    grpo = tmp_path / "grpo"
    (grpo / "run").mkdir(parents=True)
    (grpo / "run" / "run.json").write_text('{"recipe": {"prompt": "compact"}}')
    (grpo / "model.safetensors").write_bytes(b"one")
    assert systems.shield_text(tmp_path) is None
    (grpo / "MODEL_CARD.md").write_text("# A rewriter\n")
    (tmp_path / "shield.yaml").write_text(systems.shield_text(tmp_path))
    rewriter = load_config(tmp_path / "shield.yaml").rewriter
    assert rewriter.launch is not None and rewriter.launch.model == str(grpo) and rewriter.style == "compact"
    assert systems.there(tmp_path)["shield"] == f"shield:{tmp_path}/shield.yaml"
    (grpo / "model.safetensors").write_bytes(b"other")
    assert not systems.there(tmp_path)["shield"]
