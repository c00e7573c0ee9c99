"""The page about LiteLLM: both ways, as they stand there, and what a mistake in them looks like."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.base import FakeBase
from tests.fakes.child import running
from tests.fakes.http import HOST
from tests.fakes.litellm import COMMAND, ENV, ROOT, START_S, litellm_proxy
from tests.fakes.pages import blocks
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.said import ANSWER
from visa_proxy.engines.ports import free_port

pytestmark = pytest.mark.timeout(400)

PAGE = ROOT / "docs" / "hosts" / "litellm.md"
SAID = " Make it an exciting adventure."


class Pasted:
    """The blocks of the page, with other ports, models and addresses."""

    def __init__(self, folder: Path, base: FakeBase, rewriter: FakeRewriter) -> None:
        self.folder = folder
        self.ports = {"8080": free_port(), "4000": free_port()}
        self._named = {"http://127.0.0.1:8000/v1": base.url, "http://127.0.0.1:8001/v1": rewriter.url, "your-model": "sample"}
        # What is about LiteLLM as a base, under the page's last heading, is tried elsewhere.
        host = folder / "host.md"
        host.write_text(PAGE.read_text().partition("\n## Models behind")[0] + "\n")
        self.commands = [self._own(block.text).strip() for block in blocks(host) if block.language == "bash"]
        (self.script,) = (self._own(block.text) for block in blocks(host) if block.language == "python")
        for block in blocks(host):
            if block.file:
                (folder / block.file).parent.mkdir(exist_ok=True)
                (folder / block.file).write_text(self._own(block.text))

    def _own(self, text: str) -> str:
        for name, value in self._named.items():
            text = text.replace(name, value)
        return re.sub(r"(127\.0\.0\.1:|--port )(8080|4000)\b", lambda match: f"{match[1]}{self.ports[match[2]]}", text)

    @contextlib.asynccontextmanager
    async def serving(self, command: str, port: str, ready: str) -> AsyncIterator[None]:
        """What the command starts, once it answers."""
        path = f"{COMMAND.parent}:{os.environ['PATH']}"
        paths = {**ENV, "PATH": path, "PYTHONPATH": str(ROOT)}
        del paths["LITELLM_MASTER_KEY"]
        with contextlib.ExitStack() as stack:
            server = running(
                ["bash", "-c", f"cd {shlex.quote(str(self.folder))}; exec env {command}"],
                url=f"http://{HOST}:{self.ports[port]}",
                ready=ready,
                log=self.folder / f"{port}.log",
                env=paths,
                timeout_s=START_S,
            )
            await asyncio.to_thread(stack.enter_context, server)
            try:
                yield
            finally:
                await asyncio.to_thread(stack.close)

    async def run(self) -> list[str]:
        """What the page's script prints."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", self.script, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(150):
            output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().splitlines()


@pytest.fixture
def pasted(tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> Pasted:
    rewriter.rule = lambda text: f"{text}{SAID}"
    return Pasted(tmp_path, base, rewriter)


async def test_over_http(pasted: Pasted) -> None:
    serve, litellm, _ = pasted.commands
    async with pasted.serving(serve, "8080", "/readyz"), pasted.serving(litellm, "4000", "/health/liveliness"):
        whole, streamed, off = await pasted.run()
    assert off == ANSWER
    assert SAID in whole and SAID in streamed and whole.replace(SAID, "") == streamed.replace(SAID, "") == ANSWER


async def test_inside(pasted: Pasted) -> None:
    *_, litellm = pasted.commands
    async with pasted.serving(litellm, "4000", "/health/liveliness"):
        whole, streamed, off = await pasted.run()
    assert off == ANSWER
    assert SAID in whole and SAID in streamed and whole.replace(SAID, "") == streamed.replace(SAID, "") == ANSWER


async def test_a_tenant_that_is_not_there_ends_the_start_and_says_which_are(pasted: Pasted) -> None:
    config = (pasted.folder / "inside.yaml").read_text().replace("tenant: acme", "tenant: akme")
    with pytest.raises(RuntimeError, match=r"(?s)ended with status 3.*ConfigError: tenant: found 'akme'; allowed: acme\n"):
        async with litellm_proxy(pasted.folder, config, {"VISA_CONFIG": str(pasted.folder / "visa.yaml")}):
            pass
