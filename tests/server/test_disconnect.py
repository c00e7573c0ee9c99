"""A client that goes takes its request to the base and to the rewriter along, within a second, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, QUESTION, FakeBase, frames, never, streams
from tests.fakes.http import HOST, until
from tests.fakes.policies import KEY, policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.server.components import Instruments

ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    """Its tenant may have one request at a time: a slot that is not given back is noticed."""
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(limits="{concurrent: 1}"))


def tasks() -> set[str]:
    """Tasks of the product."""
    return {repr(task.get_coro()) for task in asyncio.all_tasks() if "visa_proxy/server/" in repr(task)}


async def nothing_is_left(proxy: Running, base: FakeBase, before: set[str]) -> None:
    await until(lambda: proxy.gateway.metrics.in_flight._value.get() == 0, 1, "the end of the request at the proxy")
    await until(lambda: tasks() <= before, 1, "the end of the request's tasks")
    base.answer = None
    reply = await proxy.post(ASK, {"X-Visa-Profile": "off"})
    assert reply.status == 200, "the slot was not given back"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("profile", ["bold", "off"])
async def test_while_the_base_thinks(proxy: Running, base: FakeBase, profile: str, stream: bool) -> None:
    before = tasks()
    base.answer = never
    request = asyncio.create_task(proxy.post({**ASK, "stream": stream}, {"X-Visa-Profile": profile}))
    await until(lambda: base.running == 1)
    request.cancel()
    await until(lambda: base.gone == 1, 1, "the end of the request at the base")
    await nothing_is_left(proxy, base, before)


@pytest.mark.parametrize("profile", ["bold", "off"])
async def test_while_the_base_streams(proxy: Running, base: FakeBase, profile: str) -> None:
    before = tasks()
    base.answer = streams(*frames([ANSWER * 5]), pause_s=0.05)
    async with proxy.http.post(
        f"{proxy.url}/v1/chat/completions", json={**ASK, "stream": True}, headers={"X-Visa-Profile": profile}
    ) as got:
        assert got.status == 200
        await until(lambda: base.running == 1)
        got.close()
    await until(lambda: base.gone == 1, 1, "the end of the request at the base")
    await nothing_is_left(proxy, base, before)


async def test_when_the_sdk_closes_its_stream(proxy: Running, base: FakeBase) -> None:
    before = tasks()
    base.answer = streams(*frames([ANSWER * 5]), pause_s=0.05)
    async with await proxy.client.chat.completions.create(**ASK, stream=True, extra_headers={"X-Visa-Profile": "off"}) as stream:
        async for _ in stream:
            break
    await until(lambda: base.gone == 1, 1, "the end of the request at the base")
    await nothing_is_left(proxy, base, before)


@pytest.mark.parametrize("stream", [False, True])
async def test_while_the_rewriter_thinks(proxy: Running, base: FakeBase, rewriter: FakeRewriter, stream: bool) -> None:
    before = tasks()
    rewriter.answer = never
    request = asyncio.create_task(proxy.post({**ASK, "stream": stream}))
    await until(lambda: len(rewriter.asked) == 1)
    request.cancel()
    await until(lambda: rewriter.gone == 1, 1, "the end of the request at the rewriter")
    await nothing_is_left(proxy, base, before)


async def test_while_it_sends_its_request(proxy: Running, base: FakeBase) -> None:
    before = tasks()
    _, writer = await asyncio.open_connection(HOST, int(proxy.url.rpartition(":")[2]))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 500\r\n\r\n"
    writer.write(head.encode() + b'{"model":')
    await until(lambda: proxy.gateway.metrics.in_flight._value.get() == 1)
    writer.close()
    await nothing_is_left(proxy, base, before)
    assert [seen.path for seen in base.seen] == ["/v1/chat/completions"], "the cut request never reached the base"


async def test_other_requests_go_on(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments)
    gate = asyncio.Event()

    async def gated(request: web.Request, raw: bytes) -> web.StreamResponse:
        await gate.wait()
        return await base._answer(request, raw)

    base.answer = gated
    requests = [asyncio.create_task(proxy.post(ASK)) for _ in range(6)]
    await until(lambda: base.running == 6)
    for request in requests[::2]:
        request.cancel()
    await until(lambda: base.gone == 3, 1, "the end of three requests at the base")
    gate.set()
    replies = await asyncio.gather(*requests[1::2])
    assert [reply.json["visa"]["status"] for reply in replies] == ["adapted"] * 3
