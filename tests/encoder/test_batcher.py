"""Micro-batching: who shares a batch, whom an error reaches, what cancelling does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from visa_proxy.encoder.batcher import Batcher


class Model:
    """Doubles numbers; waits for `gate`, records its batches and threads, raises for a batch with a negative number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> Sequence[int]:
        self.batches.append(items)
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.gate.wait(10)
        if any(item < 0 for item in items):
            raise RuntimeError(f"bad batch {items}")
        return [item * 2 for item in items]

    async def running(self) -> None:
        """Until a batch has reached the worker thread."""
        assert await asyncio.to_thread(self.started.wait, 10)


def submit(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.ensure_future(batcher.submit(item)) for item in items]


async def test_concurrent_submits_share_a_batch() -> None:
    model = Model()
    assert await asyncio.gather(*submit(Batcher(model), *range(10))) == [2 * i for i in range(10)]
    assert model.batches == [list(range(10))]
    assert threading.get_ident() not in model.threads


async def test_what_arrives_while_a_batch_runs_is_the_next_batch() -> None:
    model = Model()
    batcher = Batcher(model)
    model.gate.clear()
    first = submit(batcher, 1)
    await model.running()
    rest = [*submit(batcher, 2), *submit(batcher, 3, 4)]
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]
    assert model.batches == [[1], [2, 3, 4]]


async def test_batches_are_no_larger_than_allowed() -> None:
    model = Model()
    assert await asyncio.gather(*submit(Batcher(model, max_batch=4), *range(10))) == [2 * i for i in range(10)]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_an_error_reaches_the_callers_of_its_batch_only() -> None:
    model = Model()
    results = await asyncio.gather(*submit(Batcher(model, max_batch=2), 0, 1, 2, -3, 4, 5), return_exceptions=True)
    assert model.batches == [[0, 1], [2, -3], [4, 5]]
    assert [result for result in results if isinstance(result, int)] == [0, 2, 8, 10]
    assert all(isinstance(result, RuntimeError) and "[2, -3]" in str(result) for result in results[2:4])


async def test_it_works_on_after_an_error() -> None:
    batcher = Batcher(Model())
    with pytest.raises(RuntimeError, match="bad batch"):
        await batcher.submit(-1)
    assert await batcher.submit(1) == 2


async def test_a_caller_cancelled_while_its_batch_runs_harms_nobody() -> None:
    model = Model()
    batcher = Batcher(model)
    model.gate.clear()
    tasks = submit(batcher, 1, 2, 3)
    await model.running()
    tasks[1].cancel()
    await asyncio.sleep(0)
    model.gate.set()
    assert list(await asyncio.gather(tasks[0], tasks[2])) == [2, 6]
    assert tasks[1].cancelled()
    assert await batcher.submit(4) == 8


async def test_a_caller_cancelled_before_an_error_harms_nobody() -> None:
    model = Model()
    batcher = Batcher(model)
    model.gate.clear()
    tasks = submit(batcher, -1, 2)
    await model.running()
    tasks[0].cancel()
    await asyncio.sleep(0)
    model.gate.set()
    with pytest.raises(RuntimeError, match="bad batch"):
        await tasks[1]
    assert await batcher.submit(4) == 8


async def test_a_caller_cancelled_while_it_waits_is_never_run() -> None:
    model = Model()
    batcher = Batcher(model)
    model.gate.clear()
    first = submit(batcher, 1)
    await model.running()
    waiting = submit(batcher, -2, 3)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    model.gate.set()
    assert await asyncio.gather(*first, waiting[1]) == [2, 6]
    assert model.batches == [[1], [3]]


async def test_when_every_caller_is_cancelled_the_next_one_is_served() -> None:
    model = Model()
    batcher = Batcher(model)
    tasks = submit(batcher, 1, 2)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.wait_for(batcher.submit(3), 5) == 6
    assert model.batches == [[3]]


def test_two_event_loops_in_turn() -> None:
    model = Model()
    batcher = Batcher(model)

    async def work(*items: int) -> list[int]:
        return await asyncio.gather(*submit(batcher, *items))

    assert asyncio.run(work(1, 2)) == [2, 4]
    assert asyncio.run(work(3, 4)) == [6, 8]
    assert model.batches == [[1, 2], [3, 4]]


def test_a_loop_that_ends_in_the_middle_leaves_the_next_one_working() -> None:
    model = Model()
    batcher = Batcher(model)
    model.gate.clear()

    async def abandon() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*submit(batcher, 1, 2)), 0.05)
        threading.Timer(0.1, model.gate.set).start()

    async def work() -> int:
        return await asyncio.wait_for(batcher.submit(5), 10)

    asyncio.run(abandon())
    assert asyncio.run(work()) == 10
    assert model.batches == [[1, 2], [5]]


async def test_the_loop_is_not_blocked() -> None:
    model = Model()
    model.gate.clear()
    task = submit(Batcher(model), 1)[0]
    await model.running()
    turns = 0
    began = time.perf_counter()
    while time.perf_counter() - began < 0.1:
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 5 and not task.done()
    model.gate.set()
    assert await task == 2
