"""Keeps one child process running: starts it again when it ends, and ends it when it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from visa_proxy.errors import EngineError
from visa_proxy.tasks import end

logger = logging.getLogger("visa_proxy.engines")

BACKOFF_S: Final = (0.2, 1.0, 3.0, 10.0, 30.0)
STEADY_S: Final = 60.0
"""A child that ran this long starts again at the shortest wait."""
STOP_S: Final = 10.0
POLL_S: Final = 0.1
WATCH_S: Final = 5.0
"""Between two looks at a child that serves."""
HANG_S: Final = 60.0
"""A child that has not answered for so long hangs, and is killed."""
_LAST_BYTES: Final = 4096
"""Of a log, in which its last line is looked for."""
_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


class Supervisor:
    """Starts a command, says when it is ready, starts it again when it ends, stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        probe: Callable[[], Awaitable[bool]],
        env: Mapping[str, str],
        log: Path,
        startup_timeout_s: float = 180.0,
        watch: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`probe` answers whether the child serves, and `watch`, where that is not enough, whether one that serves still works; both are
        bounded. `log` takes its output, anew at each start; `env` is added to ours without the variables that hold secrets by their
        names."""
        self.name = name
        self._program = command[0]
        self._command = [sys.executable, "-m", "visa_proxy.engines.tether", str(os.getpid()), *command]
        self._probe = probe
        self._watch = watch or probe
        self._env = {name: value for name, value in os.environ.items() if not _SECRET.search(name)} | dict(env)
        self._log = log
        self._startup_timeout_s = startup_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._words = f"{log} is empty"
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """The child runs and has answered its probe."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """Of the running child."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the child and return at once. Raises EngineError when the command cannot be run at all."""
        if shutil.which(self._program) is None:
            raise EngineError(f"{self.name} cannot be started: there is no program {self._program}")
        self._task = asyncio.get_running_loop().create_task(self._keep_running(), name=f"supervise {self.name}")

    async def wait_ready(self) -> None:
        """Raises EngineError when the child is not ready within its start-up time."""
        try:
            async with asyncio.timeout(self._startup_timeout_s):
                await self._ready.wait()
        except TimeoutError as error:
            raise EngineError(f"{self.name} is not ready after {self._startup_timeout_s:g} s: {self._last_words()}") from error

    async def stop(self) -> None:
        """SIGTERM to the child's process group, SIGKILL after 10 s."""
        await end(self._task)
        self._task = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        self._signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            self._signal(process, signal.SIGKILL)
            await process.wait()
        self._signal(process, signal.SIGKILL)  # whoever of its group is left

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                end = f"ended with code {await self._run()} ({self._last_words()})"
            except OSError as error:  # no memory, no process number, no room for the log: that may pass
                end = f"cannot be started: {error.strerror or type(error).__name__}"
            failures = 0 if time.monotonic() - started > STEADY_S else failures
            wait = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            logger.error("%s %s; starting again in %.1f s", self.name, end, wait)
            await asyncio.sleep(wait)
            self.restarts += 1

    async def _run(self) -> int:
        """One child from its start to its end; the value is its exit code."""
        process = await self._spawn()
        guard = asyncio.get_running_loop().create_task(self._guard(process))
        try:
            return await process.wait()
        finally:
            guard.cancel()
            self._ready.clear()
            if process.returncode is not None:
                # Its own children may have stayed, and hold memory and the port that the next one needs.
                self._signal(process, signal.SIGKILL)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            # A session of its own: Ctrl-C reaches us first, and we stop the child in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
            )
        return self._process

    async def _guard(self, process: asyncio.subprocess.Process) -> None:
        """Until it ends: says when it is ready, and kills it when it hangs, or does not become ready."""
        time_s = asyncio.get_running_loop().time
        begun = time_s()
        while not await self._probe():
            if time_s() - begun > self._startup_timeout_s:
                logger.error("%s is not ready after %.0f s, and is ended", self.name, self._startup_timeout_s)
                self._signal(process, signal.SIGKILL)
                return
            await asyncio.sleep(POLL_S)
        logger.info("%s is ready", self.name)
        self._ready.set()
        answered = time_s()
        while time_s() - answered <= HANG_S:
            await asyncio.sleep(WATCH_S)
            if await self._watch():
                answered = time_s()
        logger.error("%s has not answered for %.0f s, and is ended", self.name, HANG_S)
        self._signal(process, signal.SIGKILL)

    def _last_words(self) -> str:
        """The end of the log; of the child before, as long as this one has said nothing."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
            if lines:
                self._words = f"{self._log}: {lines[-1][:300]}"
        return self._words

    @staticmethod
    def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
