"""What workers ask their parent: in order, of any size, and never an answer to another question."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from visa_proxy.server.workers import channel
from visa_proxy.server.workers.channel import Channel, answer


def connected(handlers: dict[str, Callable[..., Any]], lost: list[str]) -> tuple[Channel, asyncio.Task[None]]:
    ours, its = socket.socketpair()
    return Channel(its, lost=lambda: lost.append("lost")), asyncio.create_task(answer(ours, handlers))


async def test_questions_are_answered_in_order_and_at_any_size() -> None:
    lost: list[str] = []
    asking, answering = connected({"double": lambda data: data * 2, "nothing": lambda: None}, lost)
    big = b"x" * 8_000_000
    assert await asyncio.to_thread(asking.ask, "nothing") is None
    assert await asyncio.to_thread(asking.ask, "double", big) == big * 2
    assert await asyncio.to_thread(asking.ask, "double", 21) == 42
    assert not lost
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(asking.ask, "double", 1)
    assert lost == ["lost"]


async def test_a_handler_that_fails_ends_the_conversation(caplog: pytest.LogCaptureFixture) -> None:
    lost: list[str] = []
    asking, answering = connected({"parse": int}, lost)
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(asking.ask, "parse", "secret words")
    await answering
    assert lost == ["lost"]
    assert "parse failed: ValueError" in caplog.text and "secret" not in caplog.text


async def test_an_answer_that_is_too_late_fails_its_question_and_is_not_taken_for_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel, "TIMEOUT_S", 0.2)
    slow_s = [0.5]

    def answer_late(tenant: str, size: int) -> str:
        time.sleep(slow_s.pop() if slow_s else 0)
        return f"of tenant {tenant}" + "x" * size

    lost: list[str] = []
    asking, answering = connected({"late": answer_late}, lost)
    # Both sides in threads: the handler holds up the parent's loop.
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(asking.ask, "late", "a", 3_000_000)
    await asyncio.sleep(0.5)
    for tenant in ("b", "c"):
        assert await asyncio.to_thread(asking.ask, "late", tenant, 0) == f"of tenant {tenant}"
    assert not lost and "late: the parent process did not answer within 0.2 s" in caplog.text
    answering.cancel()


async def test_a_question_that_left_in_part_is_finished_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "TIMEOUT_S", 0.2)
    lost: list[str] = []
    ours, its = socket.socketpair()
    asking = Channel(its, lost=lambda: lost.append("lost"))
    for _ in range(3):  # nobody reads: the second and the third are not even begun
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(asking.ask, "size", b"x" * 5_000_000)
    monkeypatch.setattr(channel, "TIMEOUT_S", 10.0)
    asked: list[int] = []

    def size(data: bytes) -> int:
        asked.append(len(data))
        return len(data)

    answering = asyncio.create_task(answer(ours, {"size": size}))
    assert await asyncio.to_thread(asking.ask, "size", b"y" * 7) == 7
    assert asked == [5_000_000, 7] and not lost
    answering.cancel()
