"""What workers ask their parent: in order, of any size, and never an answer to another question."""

from __future__ import annotations

import asyncio
import socket
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


async def test_an_answer_that_is_too_late_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "TIMEOUT_S", 0.1)
    lost: list[str] = []
    ours, its = socket.socketpair()
    asking = Channel(its, lost=lambda: lost.append("lost"))
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(asking.ask, "of tenant a")
    with pytest.raises(BrokenPipeError):
        ours.sendall(channel._frame("the answer to tenant a"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        await asyncio.to_thread(asking.ask, "of tenant b")
    assert lost[0] == "lost"
    ours.close()
