"""What the scripts here share: a proxy of our own as a real process, and its CPU time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
START_S = 150.0


@contextlib.contextmanager
def running(*arguments: str, port: int, log: Path) -> Iterator[int]:
    """`visa-proxy ARGUMENTS… --port PORT` until the context ends; waits until /readyz says ok. Gives the process id."""
    with child([sys.executable, "-m", "visa_proxy", *arguments, "--port", str(port)], log) as process:
        wait_for(f"http://127.0.0.1:{port}/readyz", process, log)
        yield process.pid


@contextlib.contextmanager
def child(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the context ends; `env` is added to ours."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **(env or {})})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    ready: Callable[[Any], bool] = lambda answer: answer["status"] == "ok",
) -> None:
    """Waits until `url` gives JSON that is `ready`. Raises RuntimeError with the end of the log when it does not in time, or ends."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if ready(json.load(answer)):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer; {log} ends:\n{log.read_text(errors='replace')[-2000:]}")


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def cpu_s(pid: int) -> float:
    """User and system seconds of the process tree so far."""
    ticks = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of the process tree."""
    return sum(status_mb(member, "VmRSS") or 0.0 for member in tree(pid))


def status_mb(pid: int, name: str) -> float | None:
    """What the system says of the process's memory under `name`; None once it has ended, and where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return None


def machine() -> str:
    """The processor and how many of it, for the head of a table."""
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unnamed processor'}, Python {sys.version.split()[0]}"
