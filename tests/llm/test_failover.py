"""Connections that cannot be made, and the endpoint that is asked instead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from tests.fakes.base import FakeBase, answers, never, streams
from tests.fakes.http import HOST, closed_port, sending, sends, serving, until
from visa_proxy.engines.ports import free_port
from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm import http
from visa_proxy.llm.base import Endpoint
from visa_proxy.llm.failover import Failover
from visa_proxy.llm.http import HttpEndpoint, new_session

CHAT = "/chat/completions"


@dataclass
class Pair:
    """Two bases; `first.url` may be changed before `both` is called."""

    first: FakeBase
    second: FakeBase

    @contextlib.asynccontextmanager
    async def both(self, *, timeout_s: float = 5.0) -> AsyncIterator[Failover]:
        async with new_session() as session:
            yield Failover(
                [
                    HttpEndpoint(session, self.first.url, api_key="sk-1", timeout_s=timeout_s, name="first base"),
                    HttpEndpoint(session, self.second.url, timeout_s=timeout_s, name="second base"),
                ]
            )


@pytest.fixture
async def pair(base: FakeBase) -> AsyncIterator[Pair]:
    base.answer = answers({"from": "first"})
    second = FakeBase(answer=answers({"from": "second"}))
    async with serving(second.app()) as url:
        second.url = f"{url}/v1"
        yield Pair(base, second)


def model_of(endpoint: Endpoint) -> bytes:
    return b'{"model": "%b"}' % endpoint.name.encode()


async def test_the_first_answers_while_it_can(pair: Pair) -> None:
    async with pair.both() as bases, bases.request("POST", CHAT, body=model_of) as answer:
        assert (await answer.read(), answer.endpoint.name) == (b'{"from": "first"}', "first base")
    assert pair.first.seen[0].body == b'{"model": "first base"}'
    assert not pair.second.seen


async def test_nobody_listens(pair: Pair) -> None:
    pair.first.url = f"http://{HOST}:{closed_port()}/v1"
    async with pair.both() as bases:
        attempts = bases.request("POST", CHAT, headers=[("X-A", "1"), ("X-A", "2")], body=model_of)
        async with attempts as answer:
            assert (await answer.read(), answer.endpoint.name) == (b'{"from": "second"}', "second base")
        assert attempts.failovers == 1
    (seen,) = pair.second.seen
    assert seen.body == b'{"model": "second base"}', "the second base got what was meant for the first"
    assert [value for name, value in seen.headers if name == "x-a"] == ["1", "2"]
    assert seen.header("authorization") is None, "the second base got the key of the first"


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_the_first_says_that_it_cannot(pair: Pair, status: int) -> None:
    pair.first.answer = answers({"error": "busy"}, status)
    async with pair.both() as bases:
        attempts = bases.request("POST", CHAT, body=b"{}")
        async with attempts as answer:
            assert (await answer.read(), answer.status) == (b'{"from": "second"}', 200)
    assert (attempts.failovers, len(pair.first.seen), len(pair.second.seen)) == (1, 1, 1)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 408, 429, 500])
async def test_any_other_answer_counts(pair: Pair, status: int) -> None:
    pair.first.answer = answers({"from": "first"}, status)
    async with pair.both() as bases:
        attempts = bases.request("POST", CHAT, body=b"{}")
        async with attempts as answer:
            assert (await answer.read(), answer.status) == (b'{"from": "first"}', status)
    assert (attempts.failovers, len(pair.second.seen)) == (0, 0)


async def test_what_the_last_one_says_counts(pair: Pair) -> None:
    pair.first.answer = answers({"error": "busy"}, 503)
    pair.second.answer = answers({"error": "busy too"}, 503)
    async with pair.both() as bases, bases.request("POST", CHAT, body=b"{}") as answer:
        assert (answer.status, answer.endpoint.name, await answer.read()) == (503, "second base", b'{"error": "busy too"}')
    pair.second.url = f"http://{HOST}:{closed_port()}/v1"
    async with pair.both() as bases:
        attempts = bases.request("POST", CHAT, body=b"{}")
        with pytest.raises(UpstreamUnavailable, match="the second base cannot be reached"):
            async with attempts:
                pass
        assert attempts.failovers == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 OK? what\r\n\r\n"])
async def test_a_request_that_may_have_arrived_goes_nowhere_else(pair: Pair, sent: bytes) -> None:
    async with sending(sends(sent)) as url:
        pair.first.url = url
        async with pair.both() as bases:
            attempts = bases.request("POST", CHAT, body=b"{}")
            with pytest.raises(UpstreamError) as caught:
                async with attempts:
                    pass
    assert not getattr(caught.value, "unsent", False)
    assert (attempts.failovers, len(pair.second.seen)) == (0, 0)


async def test_a_base_that_thinks_too_long_may_still_be_thinking(pair: Pair) -> None:
    pair.first.answer = never
    async with pair.both(timeout_s=0.2) as bases:
        with pytest.raises(UpstreamTimeout):
            async with bases.request("POST", CHAT, body=b"{}"):
                pass
    assert not pair.second.seen


async def test_a_stream_that_breaks_off_goes_nowhere_else(pair: Pair) -> None:
    pair.first.answer = streams(b"data: 1\n\n", b"data: 2\n\n", pause_s=5)
    async with pair.both(timeout_s=0.2) as bases, bases.request("POST", CHAT, body=b"{}") as answer:
        chunks = answer.chunks()
        assert await anext(chunks) == b"data: 1\n\n"
        with pytest.raises(UpstreamTimeout):
            await anext(chunks)
    assert not pair.second.seen


@dataclass
class Gate:
    """A port that refuses, and from some moment on takes connections."""

    port: int
    runner: web.AppRunner

    async def open(self) -> None:
        await web.TCPSite(self.runner, HOST, self.port).start()


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async def reply(request: web.Request) -> web.Response:
        return web.json_response({"opened": True})

    app = web.Application()
    app.router.add_post("/v1" + CHAT, reply)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        yield Gate(free_port(), runner)
    finally:
        await runner.cleanup()


async def test_a_port_that_opens_before_the_last_attempt(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens after the second attempt (at 0.1 s to 0.15 s) and before the third (2 s later at the earliest)."""
    monkeypatch.setattr(http, "CONNECT_WAITS_S", (0.1, 2.0))
    async with new_session() as session:
        asking = asyncio.create_task(HttpEndpoint(session, f"http://{HOST}:{gate.port}/v1").json(CHAT, {}))
        await asyncio.sleep(0.8)
        assert not asking.done(), "the second attempt was the last one"
        await gate.open()
        assert await asking == {"opened": True}


async def test_three_attempts_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that resets every connection before TLS has begun on it: nothing was sent, and each attempt can be counted."""
    monkeypatch.setattr(http, "CONNECT_WAITS_S", (0.1, 0.2))
    accepted = 0

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(reset, HOST, 0)
    try:
        async with new_session() as session:
            started = time.monotonic()
            with pytest.raises(UpstreamUnavailable, match="cannot be reached") as caught:
                await HttpEndpoint(session, f"https://{HOST}:{server.sockets[0].getsockname()[1]}/v1").json(CHAT, {})
            assert caught.value.unsent
            assert 0.3 <= time.monotonic() - started < 5
    finally:
        server.close()
    assert accepted == 3


async def test_a_name_that_does_not_resolve() -> None:
    async with new_session() as session:
        with pytest.raises(UpstreamUnavailable) as caught:
            await HttpEndpoint(session, "http://nobody.invalid/v1", timeout_s=20).json(CHAT, {})
    assert caught.value.unsent


async def test_a_connection_that_is_reset_is_not_made_anew() -> None:
    """The first request on it is answered, the second one meets a reset: it may have been read before."""
    arrived: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                arrived.append(await reader.readexactly(2))
                if len(arrived) > 1:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.transport.abort()

    server = await asyncio.start_server(handle, HOST, 0)
    try:
        async with new_session() as session:
            endpoint = HttpEndpoint(session, f"http://{HOST}:{server.sockets[0].getsockname()[1]}")
            assert await endpoint.json(CHAT, {}) == {}
            with pytest.raises(UpstreamUnavailable) as caught:
                await endpoint.json(CHAT, {})
    finally:
        server.close()
    assert not caught.value.unsent and len(arrived) == 2


async def test_leaving_early_leaves_nothing(pair: Pair) -> None:
    pair.first.answer = answers({"error": "busy"}, 503)
    pair.second.answer = never
    before = asyncio.all_tasks()
    async with pair.both() as bases:
        asking = asyncio.create_task(bases.request("POST", CHAT, body=b"{}").__aenter__())
        await until(lambda: pair.second.running == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: pair.second.running == 0)
        assert not [task for task in asyncio.all_tasks() - before if "visa_proxy" in repr(task)]
