"""`visa-proxy experiment` as a user runs it, over a real store."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.experiments.made import keep, row
from tests.fakes.pages import blocks, files
from tests.fakes.policies import policy, write
from visa_proxy.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "experiment-report.md"
CONFIG = 'bases: {default: {url: "http://127.0.0.1:8000/v1", api_key_env: NOT_SET_ANYWHERE}}\npolicies: ./policies\n'
VOICE = ["--tenant", "acme", "--experiment", "voice"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with config, policies and a store with two weeks of an experiment: `bold` is liked better than `off`."""
    rng = np.random.default_rng(12)
    rows = [
        row(
            i,
            arm := ("off", "bold")[i % 2],
            day=14 * i / 800,
            score=float(np.clip(rng.normal(0.1 + 0.25 * (arm == "bold"), 0.4), -1, 1)) if rng.random() < 0.5 else None,
            status="adapted" if arm == "bold" else "passthrough",
            latency_s=float(rng.lognormal(0, 0.3)),
        )
        for i in range(800)
    ]
    keep(f"sqlite:///{tmp_path / 'visa.db'}", [*rows, row(1, "a", tenant="other", experiment="tone")])
    (tmp_path / "policies").mkdir()
    experiments = "experiments: [{name: voice, unit: user, arms: {off: 50, bold: 50}}, {name: next, unit: session, arms: {off: 1, kind: 3}}]"
    write(tmp_path / "policies", policy(extra=experiments))
    write(tmp_path, CONFIG + "store: sqlite:///visa.db\n", "visa.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, ["experiment", *args])


def asked(*args: str) -> Any:
    result = run("report", *VOICE, "--json", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_report_in_markdown(house: Path) -> None:
    result = run("report", *VOICE)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("# Experiment voice of acme\n\n800 requests of 800 units, 2026-01-01 00:00 UTC")
    assert "bold against off, score: better by +0." in result.stdout and "SAMPLE RATIO" not in result.stdout


def test_store_and_weights_come_from_the_config_or_from_options(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = asked()
    assert here["control"] == "off" and not here["balance"]["assumed"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert asked("--config", str(house / "visa.yaml")) == here  # the relative file is one beside the config
    url = f"sqlite:///{house / 'visa.db'}"
    assert asked("--store", url, "--policies", str(house / "policies" / "acme.yaml")) == here
    alone = asked("--store", url)
    assert alone["control"] == "bold" and alone["balance"]["assumed"]
    assert any("equal ones are assumed" in line for line in alone["cautions"])


def test_options_reach_the_analysis(house: Path) -> None:
    found = asked("--control", "bold", "--metric", "latency", "--alpha", "0.01", "--effect", "0.1")
    assert (found["control"], found["primary"], found["alpha"], found["effect"]) == ("bold", "latency", 0.01, 0.1)
    part = asked("--since", "2026-01-03", "--until", "2026-01-05T02:00:00+02:00")
    assert part["requests"] == pytest.approx(800 * 2 / 14, abs=1)
    assert part["first"] >= 1_767_398_400 and part["last"] < 1_767_571_200


def test_an_experiment_without_requests_has_a_report_when_a_policy_has_it(house: Path) -> None:
    result = run("report", "--tenant", "acme", "--experiment", "next")
    assert result.exit_code == 0 and "No requests yet." in result.stdout and "| kind | 0 | 0 | – | 75.0 % |" in result.stdout


def test_files_are_written_by_their_name(house: Path) -> None:
    for name in ("report.html", "report.json", "report.md"):
        result = run("report", *VOICE, "--out", name)
        assert (result.exit_code, result.stdout) == (0, "")
    assert (house / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((house / "report.json").read_text())["experiment"] == "voice"
    page = (house / "report.md").read_text()
    for plot in ("report-lift.svg", "report-days.svg"):
        assert f"]({plot})" in page and (house / plot).read_text().startswith("<svg")
    assert run("report", *VOICE, "--format", "html").stdout == (house / "report.html").read_text()


def test_listing(house: Path) -> None:
    assert run("list").stdout == "acme  voice\nother  tone\n"
    assert run("list", "--tenant", "other").stdout == "other  tone\n"
    found = run("list", "--json", "--store", f"sqlite:///{house / 'visa.db'}").stdout
    assert json.loads(found) == [{"tenant": "acme", "experiment": "voice"}, {"tenant": "other", "experiment": "tone"}]
    nobody = run("list", "--tenant", "nobody")
    assert (nobody.exit_code, nobody.stdout) == (0, "") and "no experiment" in nobody.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--tenant", "acme", "--experiment", "vioce"],
            "--experiment: the store has no request of 'vioce' of the tenant 'acme'; it has: voice",
        ),
        ([*VOICE, "--control", "c"], "there is no arm 'c'; allowed: off, bold"),
        ([*VOICE, "--metric", "joy"], "there is no metric 'joy'; allowed: feedback, thumbs"),
        ([*VOICE, "--since", "yesterday"], "--since: found 'yesterday', allowed: a date or time such as 2026-01-31"),
        ([*VOICE, "--store", "mysql://u:secret@h/d"], "store: allowed: sqlite:///path/of/a/file.db or postgresql://"),
        ([*VOICE, "--store", "sqlite:///gone.db"], "store: there is no file gone.db"),
        ([*VOICE, "--out", "nowhere/report.md"], "--out: there is no folder nowhere"),
        (
            ["--tenant", "x", "--experiment", "voice", "--policies", "policies"],
            "--policies: there is no policy of the tenant 'x' in policies",
        ),
    ],
)
def test_what_is_wrong_is_one_clear_line(house: Path, args: list[str], message: str) -> None:
    result = run("report", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip().startswith(f"visa-proxy: {message}") and "\n" not in result.stderr.strip()
    assert "secret" not in result.stderr


def test_without_a_store_it_is_said_how_to_have_one(house: Path) -> None:
    write(house, CONFIG, "visa.yaml")
    assert "there is no store; add a line such as  store: sqlite:///visa.db" in run("report", *VOICE).stderr
    (house / "visa.yaml").unlink()
    result = run("list")
    assert result.exit_code == 2 and "give --store URL or --config FILE" in result.stderr


def commands() -> list[str]:
    return [line for block in blocks(PAGE) if block.language == "bash" for line in block.text.splitlines() if line.strip()]


def test_the_commands_of_the_page_work(house: Path) -> None:
    ran = 0
    for line in commands():
        program, *args = shlex.split(line, comments=True)
        assert program == "visa-proxy"
        result = CliRunner().invoke(cli, args)
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        ran += 1
    assert ran >= 4
    assert (house / "voice.html").is_file() and (house / "voice.md").is_file()


def test_the_page_shows_what_comes_out(house: Path) -> None:
    shown = files(PAGE)["report.md"]
    assert shown in run("report", *VOICE).stdout, "the example of docs/experiment-report.md is not what the command prints"
