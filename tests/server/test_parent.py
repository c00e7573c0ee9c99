"""What the parent of several workers does when something cannot be started, for now."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http import HOST, until
from visa_proxy.policy.config import Endpoint, Launch, RewriterConfig, ServerConfig
from visa_proxy.server.run import listening
from visa_proxy.server.workers.engine import EngineKeeper
from visa_proxy.server.workers.parent import Workers

Start = Callable[..., Awaitable[Any]]


class Full:
    """A system that has no process left at some of the times that one is asked for."""

    def __init__(self, start: Start, *refused: int) -> None:
        """`refused`: 0 is the first time."""
        self._start = start
        self._refused = refused
        self.asked = 0

    async def __call__(self, *command: str, **options: Any) -> Any:
        self.asked += 1
        if self.asked - 1 in self._refused:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await self._start(*command, **options)


def workers(folder: Path, code: str) -> Workers:
    """Two processes that run `code`, which are no proxies."""
    rewriter = RewriterConfig(Endpoint("http://127.0.0.1:9/v1"))
    config = ServerConfig(bases={}, policies=folder, rewriter=rewriter, workers=2, drain_s=1.0)
    return Workers(config, [sys.executable, "-c", code], listening(HOST, 0), folder)


def open_files() -> int:
    """Of this process."""
    return len([*Path("/proc/self/fd").iterdir()])


async def test_a_worker_that_cannot_be_started_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Full(asyncio.create_subprocess_exec, 1, 3)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", full)
    # The first worker ends at once, and only once; its place is taken, after one more try.
    code = f"import os, sys, time; sys.stdin.buffer.read(); mark = {str(tmp_path / 'mark')!r}\n"
    code += "try: os.mkdir(mark)\nexcept FileExistsError: time.sleep(30)"
    parent = workers(tmp_path, code)
    running = asyncio.create_task(parent.run())
    await until(lambda: full.asked >= 5 or running.done(), 15, "the fifth try")
    await asyncio.sleep(0.5)
    assert not running.done()
    assert caplog.text.count(f"could not be started: {os.strerror(errno.EAGAIN)}; starting again in") == 2
    assert [process.returncode for process in parent._processes.values()] == [None, None]
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 15) == 0


async def test_when_no_worker_can_be_started_at_all_the_service_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "create_subprocess_exec", Full(asyncio.create_subprocess_exec, 0, 1))
    parent = workers(tmp_path, "")
    before = open_files()
    with pytest.raises(BlockingIOError):
        await asyncio.wait_for(parent.run(), 15)
    assert open_files() < before, "the listening socket is closed, and nothing else open"


async def test_a_rewriter_that_could_not_be_started_is_tried_again_when_it_is_wanted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    keeper = EngineKeeper(RewriterConfig(launch=Launch("vllm", str(tmp_path), python=str(python))), None)
    want, state = keeper.handlers["engine.want"], keeper.handlers["engine.state"]
    assert state() is None, "nobody needed it yet"
    for times in (1, 2):
        want(frozenset())
        await until(lambda: caplog.text.count("the rewriter cannot be started") == times)  # noqa: B023 - waited for at once
        assert str(python) in caplog.text
        await until(lambda: keeper._starting is None)
        assert (state().launched, state().ready) == (True, False)
    python.write_text(f"#!/bin/sh\necho started >> {log}\nsleep 60\n")
    python.chmod(0o755)
    try:
        want(frozenset())
        want(frozenset())
        await until(log.exists, 10, "the start")
        assert caplog.text.count("the rewriter cannot be started") == 2 and state().launched
    finally:
        await keeper.stop()
    assert log.read_text() == "started\n"
