"""A base or a rewriter that stalls, is cut, garbles or fails, at each point of a stream: an error or the base's text, in time, no leak."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.fakes.base import QUESTION, FakeBase, chunk, event, frames
from tests.fakes.events import events, text_of
from tests.fakes.http import serving, until
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Reply, Running, config_for, running
from tests.fakes.rewriter import FakeRewriter, asked_text, reply
from visa_proxy.server.components import Instruments

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE_S, REWRITE_S = 0.5, 1.0
SAID = " Make it an exciting adventure."
TEXT = (
    "Rinse the rice under cold water until it runs clear. Use two cups of water for each cup of rice.\n\n"
    "```sh\ncook --rice\nserve\n```\n\n"
    "Bring it to a boil in a heavy pot. Turn the heat down and cover the pot with a lid. Let it cook until it is done.\n\n"
    "Take the pot off the heat. Leave it covered while the steam finishes the work. Fluff the rice with a fork. "
    "Keep leftovers in the fridge and eat them within a day. Reheat them until they are hot all the way through."
)
ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
PARTS = frames([TEXT])
POINTS = {
    "headers": 0,
    "role": 1,
    "first-words": 6,
    "first-window": 14,
    "code": 26,
    "middle": len(PARTS) // 2,
    "last-words": len(PARTS) - 3,
    "finish-reason": len(PARTS) - 1,
}
"""Frames that arrive before the fault."""


@dataclass
class Faulty:
    """A base that goes wrong after `after` frames of a stream."""

    how: str = ""
    after: int = 0
    running: int = 0
    stalled: list[asyncio.Event] = field(default_factory=list)

    async def answer(self, request: web.Request, _: bytes) -> web.StreamResponse:
        self.running += 1
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.how == "500":
            return web.json_response({"error": {"message": "Broken.", "type": "None", "param": "None", "code": 500}}, status=500)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in PARTS[: self.after]:
            await response.write(part)
        if self.how == "stall":
            await asyncio.sleep(30)
        elif self.how == "cut":
            await response.write(b'data: {"choices": [')
            assert request.transport is not None
            request.transport.abort()
        elif self.how == "garbled":
            await response.write(b"data: {nonsense}\n\n")
        elif self.how == "not-utf8":
            await response.write(b"data: \xff\xfe\xfd\n\n")
        elif self.how == "reported":
            await response.write(event({"error": {"message": "Broken.", "type": None, "param": None, "code": None}}))
        elif self.how == "odd":
            await response.write(event(chunk({"index": "first", "delta": 5})))
        return response


@dataclass
class Stack:
    proxy: Running
    base: Faulty
    rewriter: FakeRewriter


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stack]:
    folder, fake, faulty, rewriter = tmp_path_factory.mktemp("policies"), FakeBase(), Faulty(), FakeRewriter()
    fake.answer = faulty.answer
    shield = f"{{streaming: window, retries: 0, timeout_s: {REWRITE_S}}}"
    write(folder, policy(shield=shield, limits=f"{{idle_s: {IDLE_S}, requests_per_minute: 100000}}"))
    async with serving(fake.app()) as url, serving(rewriter.app()) as rewriter_url:
        config = config_for(f"{url}/v1", f"{rewriter_url}/v1", folder, base_timeout_s=20)
        async with running(config, instruments) as proxy:
            yield Stack(proxy, faulty, rewriter)


@pytest.fixture(autouse=True)
def well_again(stack: Stack) -> None:
    stack.base.how, stack.base.after = "", len(PARTS)
    stack.rewriter.rule, stack.rewriter.answer = (lambda text: text + SAID), None
    stack.rewriter.asked.clear()


def tasks() -> int:
    """Tasks of the product."""
    return sum("visa_proxy" in repr(task.get_coro()) for task in asyncio.all_tasks())


def sockets() -> int:
    """Open connections of this process, on either side."""
    return sum("socket:" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


async def ask(stack: Stack, within_s: float) -> Reply:
    before = tasks()
    started = time.monotonic()
    got = await stack.proxy.post(ASK)
    assert time.monotonic() - started < within_s
    await until(lambda: stack.base.running == 0, 2, "the end of the request at the base")
    await until(lambda: tasks() <= before, 2, "the end of the request's tasks")
    return got


def only_ours(text: str) -> bool:
    """Nothing but a beginning of the base's text, with verified rewrites in it."""
    return TEXT.startswith(text.replace(SAID, ""))


CODES = {"stall": "upstream_timeout", "reported": None}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("how", ["stall", "cut", "garbled", "not-utf8", "reported", "odd"])
async def test_a_base_that_goes_wrong(stack: Stack, how: str, point: str) -> None:
    stack.base.how, stack.base.after = how, POINTS[point]
    got = await ask(stack, IDLE_S + REWRITE_S + 3)
    arrived = events(got.body)
    text = text_of(arrived)
    if got.status != 200:
        # Nothing of an answer had come: then it is an HTTP error.
        assert point == "headers"
        error = got.json["error"]
    else:
        assert point != "headers"
        error = arrived[-1]["error"]
        assert b"[DONE]" not in got.body
        assert not any("error" in each for each in arrived[:-1])
    assert error["code"] == CODES.get(how, "upstream_garbled")
    assert set(error) == {"message", "type", "param", "code"}
    assert only_ours(text)


async def test_a_base_that_answers_500(stack: Stack) -> None:
    stack.base.how = "500"
    got = await ask(stack, 3)
    assert got.status == 500
    assert got.json["error"] == {"message": "Broken.", "type": "upstream_error", "param": None, "code": "500"}


async def garbles(request: web.Request, raw: bytes) -> web.StreamResponse:
    return web.Response(body=b"\xff{not json", content_type="application/json")


async def stalls(request: web.Request, raw: bytes) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError("longer than any test")


async def cuts(request: web.Request, raw: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def fails(request: web.Request, raw: bytes) -> web.StreamResponse:
    return web.json_response({"error": "Broken."}, status=500)


async def runs_on(request: web.Request, raw: bytes) -> web.StreamResponse:
    return web.json_response(reply("on and on " * 50, "length"))


async def says_nothing(request: web.Request, raw: bytes) -> web.StreamResponse:
    return web.json_response(reply(None))


async def invents(request: web.Request, raw: bytes) -> web.StreamResponse:
    return web.json_response(reply("Send all of your money to the wizard of Oz today."))


FAULTS = {
    stalls: {"rewriter-timeout", "timeout"},
    cuts: {"rewriter-garbled", "rewriter-unavailable"},
    garbles: {"rewriter-garbled"},
    fails: {"rewriter-error"},
    runs_on: {"rewriter-endless"},
    says_nothing: {"rewriter-empty"},
    invents: {"unverified-facts", "unverified-values"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("word", ["Rinse", "Bring", "Keep", ""])
async def test_a_rewriter_that_goes_wrong(stack: Stack, fault: Any, word: str) -> None:
    """In the window that holds `word`: the first, one after the code, the last, or all."""

    async def sometimes(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(json.loads(raw))
        return await fault(request, raw) if word in text else web.json_response(reply(text + SAID))

    stack.rewriter.answer = sometimes
    got = await ask(stack, 2 * REWRITE_S + 3)
    assert got.status == 200
    assert got.body.endswith(b"data: [DONE]\n\n")
    arrived = events(got.body)
    text = text_of(arrived)
    assert text.replace(SAID, "") == TEXT
    windows = arrived[-1]["visa"]["windows"]
    failed = {status.removeprefix("fallback:") for status in windows if status.startswith("fallback:")}
    assert failed & FAULTS[fault]
    assert windows.get("adapted", 0) == text.count(SAID)
    if not word:
        assert arrived[-1]["visa"]["status"].startswith("fallback:")
        assert text == TEXT


async def test_nothing_is_left_open(stack: Stack) -> None:
    """After many streams that went wrong in every way, the process holds what it held before."""
    await ask(stack, 10)
    await asyncio.sleep(0.2)
    before = sockets()
    for point in POINTS.values():
        for how in ("stall", "cut", "garbled", "reported"):
            stack.base.how, stack.base.after = how, point
            await asyncio.gather(*(stack.proxy.post(ASK) for _ in range(4)))
    stack.base.how = ""
    # Connections kept for the next request are closed when none comes; those of the client's own session stay.
    await until(lambda: sockets() <= before + 16, 10, f"sockets to go back to {before}")
    assert tasks() < 12
