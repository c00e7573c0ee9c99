"""docs/ui.md: what it says to paste works, and its pictures are there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.base import FakeBase
from tests.fakes.command import ROOT
from tests.fakes.pages import blocks
from tests.fakes.policies import plain
from tests.fakes.proxy import Starter

PAGE = ROOT / "docs" / "ui.md"
TEXT = PAGE.read_text(encoding="utf-8")
MAX_PICTURE = 200_000


@pytest.mark.parametrize("name", re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT))
def test_a_picture_is_there_and_small(name: str) -> None:
    picture = PAGE.parent / name
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 1000 < picture.stat().st_size <= MAX_PICTURE


def test_the_configs_are_valid_together(tmp_path: Path) -> None:
    store, server = (yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "plain.yaml").write_text(plain())
    (tmp_path / "visa.yaml").write_text(yaml.safe_dump({**server, **store}))
    command = [sys.executable, "-m", "visa_proxy", "check", str(tmp_path / "visa.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VISA_ADMIN_KEY": "key"}, check=False)
    assert done.returncode == 0, done.stderr


async def test_the_call_with_the_key_works(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), admin_key="a-key")
    [call] = [block.text for block in blocks(PAGE) if block.text.startswith("curl")]
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        call.replace("http://127.0.0.1:8080", proxy.url),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "VISA_ADMIN_KEY": "a-key"},
    )
    output, _ = await process.communicate()
    assert b"All files are valid and in force." in output
