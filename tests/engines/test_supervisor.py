"""Child processes: started, probed, started again, stopped; real ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.http import until
from visa_proxy.engines.supervisor import Supervisor
from visa_proxy.engines.transformers import serve_command
from visa_proxy.errors import EngineError

PYTHON = sys.executable
SERVES = "import os, sys, time; print('hello', os.environ['MARK'], flush=True); open(sys.argv[1], 'w').write('x'); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"


@contextlib.asynccontextmanager
async def supervised(folder: Path, program: str, *, timeout_s: float = 15.0) -> AsyncIterator[Supervisor]:
    """A child that is ready once it has written a file."""
    mark = folder / "ready"

    async def probe() -> bool:
        return mark.exists()

    child = Supervisor(
        "child", [PYTHON, "-c", program, str(mark)], probe=probe, env={"MARK": "there"}, log=folder / "logs" / "child.log",
        startup_timeout_s=timeout_s,
    )  # fmt: skip
    try:
        await child.start()
        yield child
    finally:
        await child.stop()


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_start_ready_stop(tmp_path: Path) -> None:
    async with supervised(tmp_path, SERVES) as child:
        assert not child.ready
        await child.wait_ready()
        pid = child.pid
        assert child.ready
        assert pid is not None
        assert runs(pid)
        assert child.restarts == 0
        await child.stop()
        assert not runs(pid)
        assert child.pid is None
        assert not child.ready
        await child.stop()
    assert (tmp_path / "logs" / "child.log").read_text() == "hello there\n"


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path, SERVES) as child:
        await child.wait_ready()
        first = child.pid
        assert first is not None
        (tmp_path / "ready").unlink()
        os.kill(first, signal.SIGKILL)
        await until(lambda: not child.ready, 2, "noticing the end of the child")
        await child.wait_ready()
        assert child.restarts == 1
        assert child.pid not in (None, first)


async def test_a_child_that_dies_at_once(tmp_path: Path) -> None:
    async with supervised(tmp_path, "raise SystemExit('no such model')", timeout_s=2.0) as child:
        started = time.monotonic()
        with pytest.raises(EngineError, match=r"child is not ready after 2 s: .*child\.log: no such model"):
            await child.wait_ready()
        assert time.monotonic() - started < 4
        await until(lambda: child.restarts >= 1, 5, "another start")
        assert not child.ready


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    async def probe() -> bool:
        return True

    child = Supervisor("child", ["/nowhere/serve", "x"], probe=probe, env={}, log=tmp_path / "log")
    with pytest.raises(EngineError, match="no program /nowhere/serve"):
        await child.start()
    assert not child.ready
    await child.stop()


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.engines.supervisor.STOP_S", 0.3)
    async with supervised(tmp_path, STUBBORN) as child:
        await child.wait_ready()
        pid = child.pid
        assert pid is not None
        await child.stop()
        assert not runs(pid)


async def test_a_child_that_hangs_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.engines.supervisor.WATCH_S", 0.05)
    monkeypatch.setattr("visa_proxy.engines.supervisor.HANG_S", 0.5)
    async with supervised(tmp_path, STUBBORN) as child:
        await child.wait_ready()
        first = child.pid
        assert first is not None
        await asyncio.sleep(1)
        assert child.pid == first, "one that answers is left alone"
        (tmp_path / "ready").unlink()
        await until(lambda: child.restarts == 1, 5, "another start")
        await child.wait_ready()
        assert not runs(first)


async def test_a_child_that_answers_but_no_longer_works_hangs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.engines.supervisor.WATCH_S", 0.05)
    monkeypatch.setattr("visa_proxy.engines.supervisor.HANG_S", 0.3)
    works = True

    async def probe() -> bool:
        return True

    async def watch() -> bool:
        return works

    command = [PYTHON, "-c", "import time; time.sleep(60)"]
    child = Supervisor("child", command, probe=probe, watch=watch, env={}, log=tmp_path / "log")
    await child.start()
    try:
        await child.wait_ready()
        works = False
        await until(lambda: child.restarts == 1, 5, "another start")
    finally:
        await child.stop()


async def test_a_child_that_never_becomes_ready_is_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path, "import time; time.sleep(60)", timeout_s=0.5) as child:
        await until(lambda: child.restarts == 1, 5, "another start")
        assert not child.ready


async def test_what_a_child_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    """An engine's own process holds the memory, and sometimes the port, that the next one needs."""
    left = "import subprocess, sys\nleft = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    program = left + f"open({str(tmp_path / 'left')!r}, 'w').write(str(left.pid)); sys.exit(1)"
    async with supervised(tmp_path, program) as child:
        await until(lambda: child.restarts >= 1, 5, "another start")
        pid = int((tmp_path / "left").read_text())
    await until(lambda: not runs(pid), 2, "the end of what was left")


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.4])
async def test_stop_at_any_moment_leaves_no_process(tmp_path: Path, wait_s: float) -> None:
    """While it is spawned, while it starts, while it waits for the next try."""
    script = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); import time; time.sleep({wait_s})"
    async with supervised(tmp_path, script) as child:
        await asyncio.sleep(wait_s)
    assert child.pid is None
    with contextlib.suppress(FileNotFoundError):
        pid = int((tmp_path / "pid").read_text() or 0)
        await until(lambda: not runs(pid), 2, "the end of the child")


PARENT = """
import asyncio, sys
from pathlib import Path
from visa_proxy.engines.supervisor import Supervisor
async def main():
    async def probe(): return Path(sys.argv[1]).exists()
    command = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
    child = Supervisor("child", command, probe=probe, env={"MARK": ""}, log=Path(sys.argv[3]))
    await child.start()
    await child.wait_ready()
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
async def test_a_parent_that_is_killed_takes_its_child_along(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "ready"), SERVES, str(tmp_path / "log")]
    parent = await asyncio.create_subprocess_exec(PYTHON, "-c", PARENT, *arguments, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        pid = int(await parent.stdout.readline())
    assert runs(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not runs(pid), 3, "the end of the child")


def test_the_command_of_transformers_serve_needs_no_shell_and_no_network() -> None:
    program, *arguments = serve_command("/models/mine", 8123)
    assert Path(program).is_absolute()
    assert arguments[:2] == ["serve", "/models/mine"]
    assert "127.0.0.1" in arguments
    assert "8123" in arguments
