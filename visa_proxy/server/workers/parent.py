"""The parent: holds what its workers share, starts them, starts again the one that ends, stops them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import ServerConfig
from visa_proxy.server.engine import Engine
from visa_proxy.server.run import listening
from visa_proxy.server.workers import engine, history
from visa_proxy.server.workers.channel import answer
from visa_proxy.server.workers.child import Assignment
from visa_proxy.server.workers.limits import SharedLimiter, new_table
from visa_proxy.server.workers.metrics import forget_gauges

logger = logging.getLogger("visa_proxy.workers")

BACKOFF_S: Final = (0.0, 0.5, 2.0, 10.0, 30.0)
"""Before a worker is started again, after so many ends in a row."""
STEADY_S: Final = 60.0
"""A worker that served this long starts again at the shortest wait."""
REFUSED: Final = (2, 3)
"""How a worker ends when it cannot even start, with the config as it is."""
MARGIN_S: Final = 10.0
"""For what a worker closes once its requests are done; then it is killed."""


def serve(config: ServerConfig, command: Sequence[str]) -> int:
    """Run `config.workers` processes of `command` until SIGTERM or SIGINT; the value is the exit status.

    Raises ConfigError when the address cannot be listened on.
    """
    with contextlib.ExitStack() as stack:
        # One socket for all, and not one for each (SO_REUSEPORT): what waits to be accepted then dies with no worker, and no connection
        # waits for a busy worker while another is idle. `accept.Sharing` keeps the first from taking most of them.
        address = stack.enter_context(listening(config.host, config.port))
        # Counters in memory, where the machine has such a folder: they change with every request.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of our own in it
        metrics = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="visa-proxy-", dir=memory)))
        return asyncio.run(Workers(config, command, address, metrics).run())


class Workers:
    """The processes and what they share."""

    def __init__(self, config: ServerConfig, command: Sequence[str], address: socket.socket, metrics: Path) -> None:
        """`command`: takes an `Assignment` on its standard input. `metrics`: an empty folder of our own."""
        self._config = config
        self._command = [sys.executable, "-m", "visa_proxy.engines.tether", str(os.getpid()), *command]
        self._address = address
        self._metrics = metrics
        self._table = new_table(config.workers, metrics)
        self._limiter = SharedLimiter(self._table, worker=0, workers=config.workers)
        self._handlers: dict[str, Callable[..., Any]] = history.HistoryKeeper().handlers
        self._engine: engine.EngineKeeper | None = None
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        """The last one of each place; empty while none was ever started."""
        self._refused: set[int] = set()
        """Places of which the system would not start a worker."""
        self._status: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Serve until a signal comes. The value is the exit status: 0, or that of a worker that could not start."""
        self._status = asyncio.get_running_loop().create_future()
        async with new_session() as session:
            if Engine.needed(self._config.rewriter):
                self._engine = engine.EngineKeeper(self._config.rewriter, session)
                self._handlers |= self._engine.handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)
            keepers = [asyncio.create_task(self._keep(index), name=f"worker {index}") for index in range(self._config.workers)]
            for keeper in keepers:
                keeper.add_done_callback(self._given_up)
            try:
                return await self._status
            finally:
                await self._stop(keepers)

    def _given_up(self, keeper: asyncio.Task[None]) -> None:
        """No worker can be started, or a fault of ours: what serves ends too, in order."""
        error = keeper.exception()
        if error is not None and self._status is not None and not self._status.done():
            self._status.set_exception(error)

    def _signalled(self, number: int) -> None:
        assert self._status is not None
        if self._status.done():
            # A second Ctrl-C does not wait for requests in flight; uvicorn does the same.
            self._send(number)
        else:
            self._status.set_result(0)

    def _send(self, number: int) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        self._address.close()
        self._send(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._config.drain_s + MARGIN_S)
        if late:
            logger.error("%d workers did not end within %g s; they are killed", len(late), self._config.drain_s + MARGIN_S)
            self._send(signal.SIGKILL)
            await asyncio.wait(late)
        if self._engine is not None:
            await self._engine.stop()

    async def _keep(self, index: int) -> None:
        """One worker, and who takes its place."""
        assert self._status is not None
        failures, first = 0, True
        while not self._status.done():
            started = time.monotonic()
            try:
                code: int | str = await self._run(index)
            except OSError as error:  # no process or no memory is left, for now
                self._refused.add(index)
                if not self._processes and len(self._refused) == self._config.workers:
                    raise
                code = error.strerror or type(error).__name__
            self._limiter.end(index)
            forget_gauges(self._metrics, index)
            if self._status.done():
                return
            if first and code in REFUSED:
                self._status.set_result(int(code))
                return
            failures, first = 0 if time.monotonic() - started > STEADY_S else failures, False
            wait_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            what = f"ended with code {code}" if isinstance(code, int) else f"could not be started: {code}"
            logger.error("worker %d %s; starting again in %g s", index, what, wait_s)
            await asyncio.wait([self._status], timeout=wait_s)

    async def _run(self, index: int) -> int:
        """Start a worker and answer it until it ends; the value is its exit code."""
        ours, its = socket.socketpair()
        with contextlib.ExitStack() as unless_started, its:
            unless_started.enter_context(ours)
            assignment = Assignment(
                index=index,
                config=self._config if self._engine is None else self._engine.for_workers(self._config),
                address=self._address.fileno(),
                channel=its.fileno(),
                limits=self._table,
                metrics=self._metrics,
                owned=self._engine is not None,
                parent=os.getpid(),
            )
            # A session of its own: Ctrl-C reaches us first, and we stop the workers in order.
            process = self._processes[index] = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(assignment.address, assignment.channel, assignment.limits),
                start_new_session=True,
            )
            unless_started.pop_all()
        if self._status is not None and self._status.done():  # too late for the signal that all others were sent
            process.terminate()
        answering = asyncio.create_task(answer(ours, self._handlers))
        try:
            with contextlib.suppress(ConnectionError):
                await process.communicate(pickle.dumps(assignment))
            return await process.wait()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
