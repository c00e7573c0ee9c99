"""`visa-proxy check`, `schema` and `keys` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.policy.samples import EXAMPLES, GOOD, write
from visa_proxy.cli.check import check
from visa_proxy.cli.keys import keys
from visa_proxy.cli.schema import schema
from visa_proxy.policy.keys import hash_key
from visa_proxy.values import load_space

CONFIG = 'bases: {default: {url: "http://127.0.0.1:8000/v1", api_key_env: NOT_SET_ANYWHERE}}\n'


def test_check_examples_is_ok() -> None:
    result = CliRunner().invoke(check, [str(EXAMPLES)])
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "ok: 3 policies")
    assert "acme-outdoors: experiment bold-vs-off (running): unit user; bold 50 %, off 50 %\n" in result.output


def test_check_shows_experiments(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        GOOD + "experiments:\n"
        "- {name: one, unit: user, layer: l, traffic: 0.5, holdout: 0.2, stop: 2025-01-01T02:00:00+02:00, arms: {bold: 1, off: 3}}\n"
        "- {name: two, unit: header:X-Room, traffic: [0.1, 0.35], start: 9000-01-01T00:00:00Z,\n"
        "   arms: {a: {profile: bold, weight: 1}, bold: 1}}\n",
    )
    assert CliRunner().invoke(check, [str(path)]).output.splitlines() == [
        "ok: 1 policy",
        "acme: experiment one (over): unit user; bold 20 %, off 60 %, holdout 20 % (profile bold); 0 % to 50 % of layer l; "
        "until 2025-01-01T00:00:00Z",
        "acme: experiment two (waiting): unit header:x-room; a 50 % (profile bold), bold 50 %; 10 % to 35 % of all units; "
        "from 9000-01-01T00:00:00Z",
    ]
    one, two = json.loads(CliRunner().invoke(check, ["--json", str(path)]).output)["experiments"]
    assert one["arms"][2] == {"name": "holdout", "profile": "bold", "share": 0.2}
    assert (one["slot"], one["layer"], one["stop"], one["state"]) == ([0, 0.5], "l", "2025-01-01T00:00:00Z", "over")
    assert (two["tenant"], two["name"], two["layer"], two["start"]) == ("acme", "two", None, "9000-01-01T00:00:00Z")


def test_check_prints_one_line_per_problem_and_exits_2(tmp_path: Path) -> None:
    bad = write(tmp_path, GOOD.replace("tenant: acme", "tenant: Acme") + "shield: {streaming: windows}\n")
    good = write(tmp_path, GOOD, "good.yaml")
    result = CliRunner().invoke(check, [str(bad), str(good)])
    lines = result.output.splitlines()
    assert result.exit_code == 2 and len(lines) == 2
    assert lines[0].startswith(f"{bad}:1:9: tenant: found 'Acme'")
    assert lines[1].startswith(f"{bad}:7:21: shield.streaming:")


def test_check_json_has_places(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "nonsense: 1\n")
    result = CliRunner().invoke(check, ["--json", str(path)])
    data = json.loads(result.output)
    assert result.exit_code == 2 and not data["ok"]
    (problem,) = data["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == (str(path), 7, 1)


def test_check_defaults_to_what_is_here_and_compares_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(check).exit_code == 2
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", GOOD)
    write(tmp_path, CONFIG, "visa.yaml")
    assert CliRunner().invoke(check).output == "ok: 1 policy\n"
    write(tmp_path / "policies", GOOD + "base: claude\n")
    result = CliRunner().invoke(check)
    assert result.exit_code == 2 and "base: no base 'claude' in the server config; allowed: default" in result.output


def configured(folder: Path, spaces: str) -> Path:
    """A config with further value spaces, and a policy beside it that names a dimension of each."""
    (folder / "policies").mkdir()
    write(folder / "policies", GOOD + "  house: {values: {warmth: 1, thrift: -0.5}}\n")
    (folder / "brand").mkdir()
    write(folder / "brand", "name: brand\ndimensions: [{name: thrift, title: Thrift, goal: saving}]\n", "space.yaml")
    return write(folder, f"{CONFIG}detector: {{spaces: [{spaces}]}}\n", "visa.yaml")


def test_check_knows_the_value_spaces_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, "tone, ./brand")
    policies = str(tmp_path / "policies")
    for arguments in (
        [policies, str(config)],
        [policies, "--config", str(config)],
        [policies, str(config), "--config", str(config)],
    ):
        assert CliRunner().invoke(check, arguments).output == "ok: 1 policy\n"
    result = CliRunner().invoke(check, [policies])
    assert result.exit_code == 2 and "unknown value 'warmth'; allowed: universalism, " in result.output
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(check).output == CliRunner().invoke(check, ["--config", "visa.yaml"]).output == "ok: 1 policy\n"


@pytest.mark.parametrize(
    ("spaces", "problem"),
    [
        (
            "tone, brand",
            "visa.yaml:2:27: detector.spaces: unknown value space 'brand'; allowed: inglehart-welzel, schwartz, tone, or a folder",
        ),
        ("tone, ./none", "there is no such folder or file; allowed: inglehart-welzel, schwartz, tone, or a folder"),
        ("tone, ~nouser/x", "~nouser/x': there is no such folder or file"),
        ("tone, tone", "visa.yaml:2:27: detector.spaces: 'tone' is listed twice; list each once"),
        ("tone, ./copy.yaml", "visa.yaml:2:27: detector.spaces: two value spaces are called 'tone'; their names must differ"),
        ("tone, ./bad.yaml", "bad.yaml:1:1: dimensions: required key is missing"),
    ],
)
def test_check_says_what_is_wrong_with_a_value_space(tmp_path: Path, spaces: str, problem: str) -> None:
    config = configured(tmp_path, spaces)
    write(tmp_path, "name: bad\n", "bad.yaml")
    write(tmp_path, "name: tone\ndimensions: [{name: thrift, title: Thrift, goal: saving}]\n", "copy.yaml")
    result = CliRunner().invoke(check, [str(tmp_path / "policies"), "--config", str(config)])
    assert result.exit_code == 2 and len(result.output.splitlines()) == 1
    assert problem in result.output


def test_check_says_which_weights_are_not_there(tmp_path: Path) -> None:
    config = write(tmp_path, f"{CONFIG}detector: {{path: ./nope}}\nfacts: {{path: hf://owner/name}}\n", "visa.yaml")
    result = CliRunner().invoke(check, ["--config", str(config)])
    assert result.exit_code == 2 and len(result.output.splitlines()) == 1
    assert result.output.startswith(f"{config}:2:18: detector.path: there is no folder './nope'; allowed: a folder of weights, ")


def test_check_prints_control_characters_so_that_they_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[2Jb\nc"
    folder.mkdir()
    path = write(folder, GOOD + r'"x\e]0;P\a\ny\u2028z\x9b": 1' + "\n")
    text = CliRunner().invoke(check, [str(path)])
    assert text.exit_code == 2 and text.output.count("\n") == 1
    assert r"a\x1b[2Jb\nc/" in text.output and r":7:1: x\x1b]0;P\x07\ny\u2028z\x9b: unknown key; allowed: " in text.output
    (problem,) = json.loads(CliRunner().invoke(check, ["--json", str(path)]).output)["problems"]
    assert (problem["file"], problem["line"]) == (str(path), 7)


def test_check_of_a_name_that_is_too_long() -> None:
    result = CliRunner().invoke(check, ["x" * 5000])
    assert result.exit_code == 2 and "cannot be read: File name too long" in result.output


def test_schema_knows_the_value_spaces_of_the_config(tmp_path: Path) -> None:
    config = configured(tmp_path, "tone, ./brand")

    def names(*arguments: str) -> list[str]:
        made = json.loads(CliRunner().invoke(schema, ["policy", *arguments]).output)
        found: list[str] = made["$defs"]["ProfileSpec"]["properties"]["values"]["propertyNames"]["enum"]
        return found

    schwartz = names()
    assert len(schwartz) == 10
    assert names("--config", str(config)) == [*schwartz, *load_space("tone").names, "thrift"]


def test_schema_is_json_and_describes_every_key() -> None:
    for kind in ("policy", "config"):
        made = json.loads(CliRunner().invoke(schema, [kind]).output)
        assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        for model in (made, *made["$defs"].values()):
            assert model["additionalProperties"] is False
            assert all("description" in field or "$ref" in field for field in model["properties"].values())


def test_keys_create_prints_a_key_and_its_hash() -> None:
    data = json.loads(CliRunner().invoke(keys, ["create", "acme", "--json"]).output)
    assert data["hash"] == hash_key(data["key"])
    text = CliRunner().invoke(keys, ["create", "acme"]).output
    assert "  sk-visa-" in text and '  - "sha256:' in text
    assert CliRunner().invoke(keys, ["create", "Acme Inc"]).exit_code == 2


def test_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, visa_proxy.cli.check, visa_proxy.cli.schema, visa_proxy.cli.keys;"
        "print([m for m in ('pydantic', 'rich', 'torch', 'numpy', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
