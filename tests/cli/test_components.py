"""`visa-proxy detect`, `translate` and `rewrite` as a user runs them: what is refused, and one good run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from visa_proxy.cli.components import parse_values
from visa_proxy.cli.main import COMMANDS, cli
from visa_proxy.errors import RequestError
from visa_proxy.values import ValueVector, load_space
from visa_proxy.values.load import distinct
from visa_proxy.yaml_problems import visible

SCHWARTZ = load_space("schwartz")
COMPONENTS = ["detect", "translate", "rewrite"]


def visa_proxy(*arguments: str, input: bytes | str = "") -> Result:
    return CliRunner().invoke(cli, arguments, input=input)


def refusal(result: Result) -> str:
    """The one line on standard error of a command that was refused."""
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert lines[0].startswith("visa-proxy: ")
    return lines[0].removeprefix("visa-proxy: ")


@pytest.mark.parametrize("command", COMPONENTS)
@pytest.mark.parametrize(("arguments", "input"), [((), ""), ((), " \n\t"), (("",), ""), ((" ",), "")])
def test_no_text(command: str, arguments: tuple[str, ...], input: str) -> None:
    assert refusal(visa_proxy(command, *arguments, input=input)) == "no text: give it as an argument or on standard input"


@pytest.mark.parametrize("command", COMPONENTS)
def test_standard_input_that_is_not_utf_8(command: str) -> None:
    assert refusal(visa_proxy(command, input=b"Be \xff\xfe bold.")) == "standard input is not valid UTF-8"


def test_standard_input_that_is_not_utf_8_in_a_container() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHONIO", "PYTHONUTF8"))}
    done = subprocess.run(
        [sys.executable, "-m", "visa_proxy", "rewrite"],  # no --values: refused before any model is loaded
        input=b"Be \xff\xfe bold.",
        capture_output=True,
        env={**environment, "LC_ALL": "C.UTF-8"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, b"visa-proxy: standard input is not valid UTF-8\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("detect", b"Be \xff bold."), "TEXT"),
        (("translate", "Be", b"\xff"), "TEXT"),
        (("rewrite", b"\xff"), "TEXT"),
        (("detect", "--query", b"\xff", "Be bold."), "--query"),
        (("translate", "--query", b"\xff", "Be bold."), "--query"),
        (("translate", "--answer", b"\xff", "Be bold."), "--answer"),
        (("rewrite", "--query", b"\xff", "Be bold."), "--query"),
        (("rewrite", "--instruction", b"\xff", "Be bold."), "--instruction"),
        (("rewrite", "--values", b"power=\xff", "Be bold."), "--values"),
    ],
)
def test_arguments_that_are_not_utf_8(arguments: tuple[str | bytes, ...], named: str) -> None:
    done = subprocess.run([sys.executable, "-m", "visa_proxy", *arguments], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.decode()) == (2, f"visa-proxy: {named} is not valid UTF-8\n")


@pytest.mark.parametrize("space", ["/" + "x" * 5000, "~nouser/x", "./nope"])
def test_a_space_that_is_not_there(space: str) -> None:
    line = refusal(visa_proxy("detect", "--space", space, "Be bold."))
    assert ": there is no such folder or file; allowed: " in line and len(line) < 500


def test_what_a_refusal_quotes_does_not_command_the_terminal(tmp_path: Path) -> None:
    config = tmp_path / "a\x1b[2J\nb.yaml"
    config.write_text("- x")
    line = refusal(visa_proxy("rewrite", "--config", str(config), "--values", "power=1", "Be bold."))
    assert line.startswith(f"{tmp_path}/a\\x1b[2J\\nb.yaml:1:1: found a list")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("courage=1", "unknown value 'courage'"),
        ("Security=1", "unknown value 'Security'"),
        ("security=1,courage=1", "unknown value 'courage'"),
        ("", "unknown value ''"),
        ("security=1,", "unknown value ''"),
        ("security=1.01", "security: 1.01 is out of range; allowed: -1 … 1"),
        ("power=-2", "power: -2 is out of range; allowed: -1 … 1"),
        ("power=nan", "power: nan is out of range; allowed: -1 … 1"),
        ("power=inf", "power: inf is out of range; allowed: -1 … 1"),
        ("security=high", "security: 'high' is no number; allowed: -1 … 1"),
        ("security=", "security: '' is no number; allowed: -1 … 1"),
        ("security", "security: '' is no number; allowed: -1 … 1"),
        ("security=0.5=1", "security: '0.5=1' is no number; allowed: -1 … 1"),
    ],
)
def test_wrong_values(values: str, said: str) -> None:
    line = refusal(visa_proxy("rewrite", "--values", values, "Stay at home."))
    assert line.startswith(f"--values: {said}")


def test_an_unknown_value_is_told_which_there_are() -> None:
    line = refusal(visa_proxy("rewrite", "--values", "courage=1", "Stay at home."))
    assert line.endswith(f"allowed: {', '.join(SCHWARTZ.names)}")


def test_rewrite_without_a_goal() -> None:
    assert refusal(visa_proxy("rewrite", "Stay at home.")) == "give --values, --instruction or both"


@pytest.mark.parametrize(
    "options",
    [("--instruction", "be bold"), ("--instruction", "be bold", "--values", "power=1")],
    ids=["no values", "values and an instruction"],
)
def test_an_absolute_target_needs_values_and_nothing_else(options: tuple[str, ...]) -> None:
    line = refusal(visa_proxy("rewrite", "--mode", "target", *options, "Stay at home."))
    assert line == "--mode target needs --values and takes no --instruction"


def test_a_target_without_values_or_instruction() -> None:
    assert "--values" in refusal(visa_proxy("rewrite", "--mode", "target", "Stay at home."))


@pytest.mark.parametrize(
    "arguments",
    [
        ("rewrite", "--mode", "absolute", "x"),
        ("rewrite", "--config", "nowhere.yaml", "x"),
        ("detect", "--values", "power=1", "x"),
        ("translate", "--query"),
    ],
)
def test_wrong_options_are_named(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = visa_proxy(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and arguments[1] in last


def test_an_unknown_command() -> None:
    result = visa_proxy("detekt", "x")
    assert result.exit_code == 2 and "No such command 'detekt'" in result.stderr


@pytest.mark.parametrize("command", COMPONENTS)
def test_help_needs_no_model(command: str) -> None:
    result = visa_proxy(command, "--help")
    assert result.exit_code == 0 and "TEXT" in result.stdout
    assert command in visa_proxy("--help").stdout and command in COMMANDS


def test_values_are_parsed() -> None:
    assert parse_values("stimulation=1, security = -0.5") == ValueVector.of(SCHWARTZ, {"stimulation": 1, "security": -0.5})
    assert parse_values("power=-1,hedonism=+1e-1") == ValueVector.of(SCHWARTZ, {"power": -1, "hedonism": 0.1})
    with pytest.raises(RequestError, match="--values"):
        parse_values("power")


def test_detect_json_in_a_real_process() -> None:
    text = "Try something new and exciting: seek adventure and take a daring risk."
    done = subprocess.run(
        [sys.executable, "-m", "visa_proxy", "detect", "--json", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert list(data) == ["space", "values", "confidence"] and data["space"] == "schwartz"
    assert list(data["values"]) == list(SCHWARTZ.names)
    assert all(-1 <= level <= 1 for level in data["values"].values())
    assert data["values"]["stimulation"] > 0.3


def test_detect_explains_itself_and_draws(tmp_path: Path) -> None:
    text = "The path is flat and dry. Above all, stay safe and take every precaution."
    shown = visa_proxy("detect", "--explain", "--plot", str(tmp_path / "circle.svg"), text)
    assert shown.exit_code == 0, shown.output
    carrying = next(line for line in shown.stdout.splitlines() if line.endswith("take every precaution."))
    assert "security +" in carrying and "% sure" in shown.stdout
    drawn = (tmp_path / "circle.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml") and "<path" in drawn
    data = json.loads(visa_proxy("detect", "--explain", "--json", text).stdout)
    assert [each["text"] for each in data["sentences"]] == [text[:25], text[26:]]
    assert data["sentences"][1]["values"]["security"] > data["sentences"][0]["values"]["security"]
    assert set(data["confidence"]) == set(data["values"])


def test_detect_draws_into_pictures_only(tmp_path: Path) -> None:
    assert refusal(visa_proxy("detect", "--plot", str(tmp_path / "circle.txt"), "Be bold.")).startswith(
        "--plot: circle.txt ends in .txt; allowed: "
    )


def test_detect_reads_other_spaces() -> None:
    data = json.loads(visa_proxy("detect", "--space", "tone", "--json", "Nah mate, just bin it.").stdout)
    assert data["values"]["formality"] < 0 and "security" in data["values"]
    assert "mood" in refusal(visa_proxy("detect", "--space", "mood", "Fine."))


def test_a_space_named_twice_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "brand"
    folder.mkdir()
    (folder / "space.yaml").write_text("name: brand\ndimensions: [{name: thrift, title: T, goal: g}]\n")
    spaces = ("tone", "./brand", "tone", "./brand/", "brand/space.yaml", str(folder))
    assert distinct(spaces) == ("tone", "./brand")
    options = [word for space in spaces for word in ("--space", space)]
    assert "brand/head.safetensors: there is no head for the space './brand' here" in refusal(
        visa_proxy("detect", *options, "Fine.")
    )
    found = visa_proxy("detect", "--space", "tone", "--space", "tone", "--json", "Fine.")
    assert json.loads(found.stdout)["space"] == "schwartz+tone"


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    text = "Hi \x1b]0;PWNED\x07 \x1b[2J you.\r\nStay \x9b[31msafe at home."
    shown = visa_proxy("detect", "--explain", input=text)
    assert shown.exit_code == 0, shown.output
    assert r"Hi \x1b]0;PWNED\x07 \x1b[2J you." in shown.stdout and r"\x9b[31msafe" in shown.stdout
    assert not set("\x1b\x07\x9b") & set(shown.stdout)
    data = json.loads(visa_proxy("detect", "--explain", "--json", input=text).stdout)
    assert data["sentences"][0]["text"].startswith("Hi \x1b]0;PWNED\x07 \x1b[2J you.")


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("a\tb\nc\r\nd", r"a\tb\nc\r\nd", "a\tb\nc\r\nd"),
        ("done\rgone", r"done\rgone", r"done\rgone"),
        ("\x00\x07\x08\x0b\x1b\x7f\x85\x9b\u2028\udcff", *[r"\x00\x07\x08\x0b\x1b\x7f\x85\x9b\u2028\udcff"] * 2),
        ("ein Schluß, 終わり\u3000\u200d👩\u200d🚀", *["ein Schluß, 終わり\u3000\u200d👩\u200d🚀"] * 2),
    ],
)
def test_visible(text: str, line: str, lines: str) -> None:
    assert (visible(text), visible(text, lines=True)) == (line, lines)


def test_translate_refuses_other_languages_politely() -> None:
    found = visa_proxy("translate", "Mach es bitte viel mutiger und abenteuerlicher.")
    assert found.exit_code == 0 and "confidence 0.00" in found.stdout
    assert "does not seem to be in English" in found.stderr
