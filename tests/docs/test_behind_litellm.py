"""The last section of docs/hosts/litellm.md, as a reader pastes it: with other ports, and a provider that is not Anthropic's own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.fakes.anthropic import messages
from tests.fakes.base import FakeBase
from tests.fakes.http import HOST, until
from tests.fakes.needed import needs
from tests.fakes.pages import Block, blocks, files
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.engines.ports import free_port

pytestmark = needs("litellm")

PAGE = Path(__file__).parents[2] / "docs" / "hosts" / "litellm.md"
HEADING = "## Models behind LiteLLM's SDK\n"


def section(folder: Path) -> list[Block]:
    """Its blocks."""
    part = folder / "section.md"
    part.write_text(PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0])
    return blocks(part)


@pytest.mark.timeout(240)
async def test_a_reader_gets_claude_rewritten(tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> None:
    port, base.answer = free_port(), messages()
    config, serve, client = section(tmp_path)

    def adapted(text: str) -> str:
        return text.replace("8080", str(port)).replace("http://127.0.0.1:8001/v1", rewriter.url)

    policy = tmp_path / "policies" / "acme.yaml"
    policy.parent.mkdir()
    policy.write_text(files(PAGE)["policies/acme.yaml"])
    (tmp_path / config.file).write_text(adapted(config.text))
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= {"ANTHROPIC_API_KEY": "sk-provider", "ANTHROPIC_API_BASE": base.url.removesuffix("/v1")}
    server = await asyncio.create_subprocess_exec(
        "bash", "-e", "-c", "exec " + adapted(serve.text), cwd=tmp_path, env=env, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    try:
        await until(lambda: server.returncode is not None or _listens(port), 60, "the server's start")
        reader = await asyncio.create_subprocess_exec(sys.executable, "-c", adapted(client.text), env=env, stdout=-1)
        said, _ = await asyncio.wait_for(reader.communicate(), 60)
    finally:
        if server.returncode is None:
            server.terminate()
        printed, _ = await asyncio.wait_for(server.communicate(), 40)
    assert "For the thrill of it, rinse the rice" in said.decode(), printed.decode()
    assert "https://example.org/rice" in said.decode()
    assert [seen.header("x-api-key") for seen in base.seen] == ["sk-provider"]
    assert not re.search("rice|sk-provider", printed.decode()), "what is said is not logged"


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
