"""deploy/docker: no engine runs here, so the file is linted, and what it says is tried piece by piece."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.places import DEPLOY, ROOT
from tests.fakes.base import FakeBase
from tests.fakes.http import closed_port
from tests.fakes.policies import plain
from tests.fakes.proxy import Starter
from visa_proxy import __version__

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
TEXT = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text(encoding="utf-8"))
FINAL = TEXT[TEXT.rindex("\nFROM ") :]


def said(instruction: str, text: str = FINAL) -> list[str]:
    """The arguments of each such instruction."""
    return re.findall(rf"^\s*{instruction} (.+)$", text, re.MULTILINE)


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([linter, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && sudo pip install requests\n")
    linter = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([linter, bad], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "DL3006" in result.stdout, "an image without a tag"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out but what is named"
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    sources = {source for copied in said("COPY", TEXT) if "--from" not in copied for source in copied.split()[:-1]}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)
    secrets = (".env", "deploy/compose/.env", "visa.yaml", ".git", ".venv")
    assert not [name for name in secrets if any(fnmatch.fnmatch(name, f"{rule}*") for rule in kept)]


def test_the_last_stage_holds_no_tools_and_runs_as_nobody() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said("USER")[-1]), "a number: Kubernetes cannot tell who a name is"
    assert FINAL.rindex("\nUSER ") < FINAL.index("\nENTRYPOINT ")
    assert not re.search(r"apt-get|apk add|pip install|gcc|curl", " ".join(said("RUN")))
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+( AS build)?", image) for image in said("FROM", TEXT))
    assert len({image.split()[0] for image in said("FROM", TEXT)}) == 1, "the virtual environment holds on to its Python"


def test_it_serves_the_mounted_config() -> None:
    from click.testing import CliRunner

    from visa_proxy.cli.main import cli

    command = json.loads(said("ENTRYPOINT")[0]) + json.loads(said("CMD")[0])
    assert command[0] == "visa-proxy"
    result = CliRunner().invoke(cli, [*command[1:-1], "/nowhere/visa.yaml"])
    assert result.exit_code == 2
    assert "/nowhere/visa.yaml" in result.output, "it got as far as the file"


def test_image_and_package_have_the_same_version() -> None:
    tags = re.findall(
        r"ghcr\.io/visa-proxy/visa-proxy:(\S+)", DOCKERFILE.read_text() + (DEPLOY / "compose/compose.yaml").read_text()
    )
    assert len(tags) == 2
    assert set(tags) == {__version__}


@pytest.mark.parametrize("up", [True, False])
async def test_the_health_check_asks_readyz(start: Starter, base: FakeBase, up: bool) -> None:
    check = json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])
    assert check[0] == "python"
    url = (await start(base.url, text=plain())).url if up else f"http://127.0.0.1:{closed_port()}"
    code = check[2].replace("http://127.0.0.1:8080", url)
    assert code != check[2] and "/readyz" in code
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.DEVNULL)
    assert (await asyncio.wait_for(process.wait(), 20) == 0) is up
