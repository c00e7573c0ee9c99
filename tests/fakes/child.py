"""A server as a child process: started, waited for, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POLL_S: Final = 0.2
STOP_S: Final = 30.0


@dataclass(frozen=True)
class Child:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str
    """Without a path or a trailing slash."""
    log: Path

    def get(self, path: str, *, timeout_s: float = 10.0) -> str:
        """The body of an answer. Raises OSError for anything but a 2xx."""
        with urllib.request.urlopen(self.url + path, timeout=timeout_s) as answer:
            return str(answer.read(), "utf-8")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The process stands still, as on a machine that is far too busy; its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(
    command: Sequence[str], *, url: str, ready: str, log: Path, env: Mapping[str, str], timeout_s: float
) -> Iterator[Child]:
    """The server of `command`, once `url + ready` answers 2xx. When it does not, or a test fails, its log is in the output."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, start_new_session=True
        )
    child = Child(process, url, log)
    try:
        _wait(child, ready, timeout_s)
        yield child
    finally:
        _stop(process)


def _wait(child: Child, ready: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            child.get(ready)
            return
        status = child.process.poll()
        if status is not None or time.monotonic() > deadline:
            fate = f"not ready after {timeout_s:g} s" if status is None else f"ended with status {status}"
            raise RuntimeError(f"{child.process.args!r}: {fate}\n{tail(child.log)}")
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server; after a while SIGKILL to whatever is left of its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_S)


def tail(log: Path, lines: int = 60) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
