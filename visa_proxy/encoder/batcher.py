"""Micro-batching: concurrent requests share one pass through a model, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs `function` over batches of what callers submit, one batch at a time, in a worker thread.

    A batch is whatever arrived while the one before it ran, so an idle model answers at once and a busy one fills its batches;
    there is no timer to tune. Works with any number of event loops in turn, one at a time (a CLI calls asyncio.run more than once).
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Sequence[Result]],
        *,
        max_batch: int = 64,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batcher")
        self._pending: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result for `item`. Raises what `function` raised for the batch; a cancelled caller leaves the others alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._pending.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._drain(loop))
        return await future

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        await asyncio.sleep(0)  # let the requests that are ready now join the first batch
        while self._pending:
            batch = [entry for entry in self._pending[: self._max_batch] if not entry[1].done()]
            del self._pending[: self._max_batch]
            if batch:
                await self._run(loop, batch)

    async def _run(self, loop: asyncio.AbstractEventLoop, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await loop.run_in_executor(self._executor, self._function, [item for item, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001  it is the callers who know what to do with it
            for _, future in batch:
                with contextlib.suppress(asyncio.InvalidStateError):
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
