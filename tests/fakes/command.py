"""`visa-proxy serve` as a child process, with its workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.fakes.http import HOST
from tests.fakes.policies import KEY
from tests.fakes.proxy import Reply
from visa_proxy.engines.ports import free_port

ROOT = Path(__file__).parents[2]
START_S = 100.0


@dataclass
class Command:
    """A running `visa-proxy serve`."""

    process: asyncio.subprocess.Process
    url: str
    log: Path
    http: aiohttp.ClientSession
    """Opens a connection for each request, so that any worker may get it; sends the tenant's key."""

    async def post(self, body: Any, headers: dict[str, str] | None = None, path: str = "/v1/chat/completions") -> Reply:
        async with self.http.post(self.url + path, json=body, headers=headers) as got:
            return Reply(got.status, got.headers, await got.read())

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        async with self.http.get(self.url + path, headers=headers) as got:
            return Reply(got.status, got.headers, await got.read())

    async def samples(self) -> dict[str, float]:
        """All of /metrics: value by name with labels. Fails when one is there twice."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        samples = {name: float(value) for name, _, value in found}
        assert len(samples) == len(found), "a sample is there twice"
        return samples

    def workers(self) -> list[int]:
        """Process ids of the workers that run."""
        return [pid for pid, command in children(self.process.pid) if "visa_proxy.cli.worker" in command]

    async def ready(self, count: int) -> None:
        """Waits until `count` workers say, each for itself, that they are ready."""
        deadline = time.monotonic() + START_S
        ready: set[int] = set()
        while len(ready & set(self.workers())) < count:
            for pid in set(self.workers()) - ready:
                with self.only(pid):
                    if await self._says_ready():
                        ready.add(pid)
            assert self.process.returncode is None and time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.2)

    async def _says_ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.get(self.url + "/readyz", timeout=aiohttp.ClientTimeout(total=0.5)) as got:
                return bool(orjson.loads(await got.read())["status"] == "ok")
        return False

    @contextlib.contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """While the context lasts, this worker alone takes connections: the others are stopped."""
        others = [other for other in self.workers() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGCONT)


@contextlib.asynccontextmanager
async def serving_command(
    folder: Path, config: str, *arguments: str, env: dict[str, str] | None = None
) -> AsyncIterator[Command]:
    """Runs it in `folder` with `config` as its visa.yaml, until the context is left."""
    (folder / "visa.yaml").write_text(config)
    port, log = free_port(), folder / "serve.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "visa_proxy", "serve", "--port", str(port), *arguments),
            cwd=folder,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=aiohttp.ClientTimeout(total=30),
    )
    try:
        async with session:
            yield Command(process, f"http://{HOST}:{port}", log, session)
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(30):
                await process.wait()


def children(pid: int) -> list[tuple[int, str]]:
    """Process id and command line of the children of `pid` that run."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append((int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")))
    return sorted(found)


def alive(pid: int) -> bool:
    """It runs, and is not merely waiting to be reaped."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
