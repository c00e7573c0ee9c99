"""The live feed: what became of answers, to few viewers, who may be slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase
from tests.fakes.http import until
from tests.fakes.policies import plain, policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.errors import RateLimited
from visa_proxy.server.components import Instruments
from visa_proxy.server.ui import feed
from visa_proxy.server.ui.feed import VIEWERS, WAITING, Feed, Shown
from visa_proxy.shield.trace import Trace

BODY = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


@contextlib.asynccontextmanager
async def watching(proxy: Running) -> AsyncIterator[aiohttp.StreamReader]:
    """The feed, once it has begun."""
    async with proxy.http.get(f"{proxy.url}/ui/api/feed", timeout=aiohttp.ClientTimeout(total=30)) as got:
        assert got.status == 200
        assert await got.content.readuntil(b"\n\n") == b": the feed begins\n\n"
        yield got.content


async def news(content: aiohttp.StreamReader) -> tuple[str, Any]:
    """Name and data of the next event."""
    async with asyncio.timeout(10):
        block = (await content.readuntil(b"\n\n")).decode()
    name, data = block.strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_every_answer_is_told_without_a_word_of_it(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, text=policy(), instruments=instruments)
    async with watching(proxy) as content:
        reply = await proxy.post(BODY)
        name, told = await news(content)
        assert name == "answer"
        assert told["request_id"] == reply.headers["X-Request-Id"]
        assert (told["tenant"], told["profile"], told["status"]) == ("acme", "bold", "adapted")
        assert told["values"] == reply.json["visa"]["values"]
        assert told["similarity"] == reply.json["visa"]["similarity"]
        assert abs(told["at"] - time.time()) < 10
        await proxy.post({**BODY, "stream": True}, {"X-Visa-Profile": "off"})
        _, relayed = await news(content)
        assert (relayed["profile"], relayed["status"], relayed["streamed"]) == ("off", "passthrough", True)
    words = json.dumps([told, relayed])
    for text in (QUESTION, ANSWER, thrilled(ANSWER)):
        assert text[:20] not in words


async def test_an_arm_is_told(start: Starter, base: FakeBase) -> None:
    experiments = "experiments: [{name: a-a, unit: user, arms: {off: 1, on: 1}}]\n"
    text = plain().replace("{off: passthrough}", "{off: passthrough, on: passthrough}") + experiments
    proxy = await start(base.url, text=text)
    async with watching(proxy) as content:
        reply = await proxy.post({**BODY, "user": "u1"})
        assert (await news(content))[1]["experiment"] == reply.headers["X-Visa-Experiment"] != ""


async def test_few_may_watch_and_their_places_become_free(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(VIEWERS):
            await stack.enter_async_context(watching(proxy))
        refused = await proxy.get("/ui/api/feed")
        assert refused.status == 429
        assert "Retry-After" in refused.headers
    await until(lambda: not proxy.gateway.feed.watched)
    async with watching(proxy):
        pass


async def test_a_server_that_stops_does_not_wait_for_viewers(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), drain_s=20.0)
    async with watching(proxy) as content:
        started = time.monotonic()
        proxy.server.should_exit = True
        assert await content.read() == b""
        await proxy.serving
        assert time.monotonic() - started < 5


async def test_who_reads_slowly_misses_the_oldest_and_is_told() -> None:
    told = Feed()
    with told.viewer() as viewer:
        for number in range(WAITING + 7):
            told.tell(Shown(str(number), "acme", "bold", "", False), [Trace(status="passthrough")])
        frames = viewer.frames()
        await anext(frames)
        assert b'event: missed\ndata: {"count":7}' in await anext(frames)
        seen = [json.loads(each.partition(b"data: ")[2]) for each in (await anext(frames)).split(b"\n\n")[:-1]]
        assert [each["request_id"] for each in seen] == [str(number) for number in range(7, WAITING + 7)]
        told.stop()
        assert [frame async for frame in frames] == []
    assert not told.watched


async def test_an_idle_feed_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEEP_ALIVE_S", 0.01)
    with Feed().viewer() as viewer:
        frames = viewer.frames()
        await anext(frames)
        assert (await anext(frames)).startswith(b":")


async def test_a_viewer_has_to_come_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(feed, "LASTS_S", 0.1)
    with Feed().viewer() as viewer:
        assert len([frame async for frame in viewer.frames()]) > 2


def test_one_viewer_too_many_is_refused() -> None:
    told = Feed()
    with contextlib.ExitStack() as stack:
        for _ in range(VIEWERS):
            stack.enter_context(told.viewer())
        with pytest.raises(RateLimited):
            stack.enter_context(told.viewer())
    assert not told.watched
