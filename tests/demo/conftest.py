"""The real demo as a real process, once for all tests here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]
START_S = 150.0


@dataclass(frozen=True)
class Demo:
    """A running `visa-proxy demo`."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """The rewriter's child serves, and everything else does too."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(orjson.loads(answer.read())["status"] == "ok")
        except OSError:
            return False

    def rewriter_pid(self) -> int:
        """The child that serves the rewriter."""
        found = subprocess.run(["pgrep", "-P", str(self.pid), "-f", "transformers"], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "visa_proxy", "demo", "--port", str(port)],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=os.environ,
        )
    running = Demo(port, process.pid, log)
    try:
        deadline = time.monotonic() + START_S
        while not running.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
