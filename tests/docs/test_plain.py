"""docs/hosts/plain.md, block by block: what a reader pastes, with other ports and the key that was printed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.fakes.base import ANSWER, FakeBase
from tests.fakes.collector import FakeCollector
from tests.fakes.command import ROOT
from tests.fakes.http import HOST, serving, until
from tests.fakes.pages import Block, blocks, files
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.engines.ports import free_port

PAGE = ROOT / "docs" / "hosts" / "plain.md"
PLACEHOLDER = "sk-the-key-that-was-printed"
NO_HASH = f"sha256:{'0' * 64}"


class Reader:
    """Somebody who follows the page in a folder of their own."""

    def __init__(self, folder: Path, ports: dict[int, int]) -> None:
        """`ports`: those of the page to those of the test."""
        self.folder = folder
        self.key = PLACEHOLDER
        self.hash = NO_HASH
        self._ports = ports
        self._env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def adapt(self, text: str) -> str:
        for old, new in self._ports.items():
            text = re.sub(rf"(127\.0\.0\.1|port): ?{old}\b|(127\.0\.0\.1):{old}\b", lambda m, new=new: _port(m[0], new), text)  # type: ignore[misc]
        return text.replace(PLACEHOLDER, self.key).replace(NO_HASH, self.hash)

    async def run(self, block: Block) -> str:
        """What the block prints. Fails when it fails."""
        process = await self.start(block)
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, f"{block.text}\n{output.decode()}"
        return output.decode()

    async def start(self, block: Block) -> asyncio.subprocess.Process:
        """The block, running."""
        program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-e", "-c"]
        text = self.adapt(block.text)
        # So that a signal reaches the command, and not the shell that waits for it.
        text = text.replace("visa-proxy serve", "exec visa-proxy serve") if block.language == "bash" and "serve" in text else text
        return await asyncio.create_subprocess_exec(
            *program,
            re.sub(r"((?:OTEL_\w+=\S+ )+)exec ", r"exec env \1", text),
            cwd=self.folder,
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    @contextlib.asynccontextmanager
    async def serving(self, block: Block, port: int) -> AsyncIterator[None]:
        """While the context lasts, the server that the block starts is up; then it ends as it should."""
        process = await self.start(block)
        try:
            await until(lambda: process.returncode is not None or _answers(port), 60, "the server")
            assert process.returncode is None, (await process.communicate())[0].decode()
            yield
        finally:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0


def _port(found: str, new: int) -> str:
    return re.sub(r"\d+$", str(new), found)


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.fixture
async def collector() -> AsyncIterator[FakeCollector]:
    fake = FakeCollector()
    async with serving(fake.app()) as fake.url:
        yield fake


@pytest.mark.timeout(300)  # models are loaded twice, by two workers
async def test_the_page_from_the_key_to_the_traces(
    tmp_path: Path, base: FakeBase, rewriter: FakeRewriter, collector: FakeCollector
) -> None:
    port = free_port()
    places = {8080: port, 8000: _of(base.url), 8001: _of(rewriter.url), 4318: _of(collector.url)}
    reader = Reader(tmp_path, places)
    install, create, check, serve, curl, metrics, traced = [block for block in blocks(PAGE) if block.language == "bash"]
    (client,) = [block for block in blocks(PAGE) if block.language == "python"]
    assert "pip install" in install.text

    printed = await reader.run(create)
    reader.key, reader.hash = re.findall(r"sk-\S+|sha256:[0-9a-f]{64}", printed)
    for name, text in files(PAGE).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(reader.adapt(text))
    assert await reader.run(check) == "ok: 1 policy\n"

    async with reader.serving(serve, port):
        reply = orjson.loads(await reader.run(curl))
        assert reply["choices"][0]["message"]["content"] == thrilled(ANSWER)
        assert await reader.run(client) == f"adapted\n{thrilled(ANSWER)}\n"
        assert 'visa_answers_total{profile="bold",status="adapted",tenant="acme-outdoors"} 2.0' in await reader.run(metrics)
    assert not collector.spans

    async with reader.serving(traced, port):
        await reader.run(curl)
    (request,) = collector.named("POST /v1/chat/completions")
    assert (request.service, request.attributes["visa.status"]) == ("visa-proxy", "adapted")


def test_the_extras_that_the_page_installs_exist() -> None:
    install = next(block.text for block in blocks(PAGE) if "pip install" in block.text)
    (names,) = re.findall(r"'\.\[([a-z,]+)\]'", install)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(names.split(",")) <= set(extras)
    assert (ROOT / re.findall(r"--constraint (\S+)", install)[0]).is_file()


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert links and not [link for link in links if not (PAGE.parent / link).exists()]


def _of(url: str) -> int:
    (port,) = re.findall(r":(\d+)", url)
    return int(port)
