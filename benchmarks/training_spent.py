"""What the stages of a training took: seconds, memory and machine, written while they run, so that a kill loses a second of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from proxy import machine, status_mb

FILE: Final = "stages.json"
TICK_S: Final = 1.0
STOP_S: Final = 60.0
"""How long a command may take to end after Ctrl-C."""


@dataclass(frozen=True)
class Spent:
    """On one stage, over all runs of its command."""

    seconds: float = 0.0
    peak_mb: float | None = None
    """Of the command's process, without its children; None where the system does not say."""
    machine: str = ""
    """The last one, where there were several."""
    runs: int = 0
    """How often it was begun or went on."""


class Journal:
    """RUNS/stages.json."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        known = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        self.stages: dict[str, Spent] = {name: Spent(**fields) for name, fields in known.items()}

    def set(self, name: str, spent: Spent) -> None:
        """All of the file or nothing of it is on disk."""
        self.stages[name] = spent
        draft = self._file.with_name(f"{FILE}.part")
        draft.write_text(json.dumps({key: asdict(each) for key, each in self.stages.items()}, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._file)

    def run(self, name: str, words: list[str], *, anew: bool) -> int:
        """The exit status of `visa-proxy WORDS`, whose output is ours; it ends when this process does. `anew`: what is known is forgotten."""
        before = Spent() if anew else self.stages.get(name, Spent())
        spent = replace(before, machine=device(), runs=before.runs + 1)
        command = ["-m", "visa_proxy.engines.tether", str(os.getpid()), sys.executable, "-m", "visa_proxy", *words]
        started = time.monotonic()
        with subprocess.Popen([sys.executable, *command]) as process:
            try:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        # Shorter at first, so that a short command is looked at too.
                        process.wait(min(TICK_S, 0.1 + time.monotonic() - started))
                    seconds = round(before.seconds + time.monotonic() - started, 1)
                    spent = replace(spent, seconds=seconds, peak_mb=_most(spent.peak_mb, peak_mb(process.pid)))
                    self.set(name, spent)
            except KeyboardInterrupt:  # the terminal told the child as well, which keeps what it has
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                process.terminate()
                raise
            return process.returncode


def peak_mb(pid: int) -> float | None:
    """The most memory that the process has held so far; None where that cannot be known any more."""
    found = status_mb(pid, "VmHWM")
    return None if found is None else round(found, 1)


def device() -> str:
    """Processor, and the GPUs where there are any."""
    if (program := shutil.which("nvidia-smi")) is None:
        return machine()
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60).stdout.split("\n")
    return ", ".join([*(name.strip() for name in found if name.strip()), machine()])


def _most(a: float | None, b: float | None) -> float | None:
    return max((each for each in (a, b) if each is not None), default=None)
