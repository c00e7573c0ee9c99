"""deploy/systemd: the unit, as systemd reads it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.places import DEPLOY
from visa_proxy.policy.config_schema import ServerFile

UNIT = DEPLOY / "systemd" / "visa-proxy.service"


class Unit(configparser.RawConfigParser):
    """Keys keep their case; of a key given twice, the last is kept."""

    def __init__(self) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",))
        self.read_string(UNIT.read_text(encoding="utf-8"))

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    program = Unit()["Service"]["ExecStart"].split()[0]
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace(program, str(Path(sys.executable).with_name("visa-proxy"))))
    result = subprocess.run([analyze, "verify", "--man=no", here], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert UNIT.name not in result.stderr
    here.write_text(here.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    result = subprocess.run([analyze, "verify", "--man=no", here], capture_output=True, text=True, timeout=60)
    assert "NoNewPrivilege" in result.stderr, "it would not have noticed"


def test_requests_in_flight_have_their_time_and_a_crash_is_mended() -> None:
    service = Unit()["Service"]
    assert int(service["TimeoutStopSec"]) > ServerFile().drain_s
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2", "bad input"
    assert "ExecReload" not in service, "policies are read again by themselves"


def test_it_may_do_as_little_as_possible() -> None:
    service = Unit()["Service"]
    expected = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "CapabilityBoundingSet": "",
        "EnvironmentFile": "-/etc/visa/secrets.env",
    }
    assert {key: service[key] for key in expected} == expected


def test_it_starts_what_the_command_line_knows() -> None:
    from click.testing import CliRunner

    from visa_proxy.cli.main import cli

    command = Unit()["Service"]["ExecStart"].split()
    result = CliRunner().invoke(cli, [*command[1:-1], "/nowhere/visa.yaml"])
    assert (Path(command[0]).name, result.exit_code) == ("visa-proxy", 2)
    assert "/nowhere/visa.yaml" in result.output
