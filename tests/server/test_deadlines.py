"""What one connection, one request, one client may cost: bytes that never end, and waits that never end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, frames, never, streams
from tests.fakes.http import HOST, until
from tests.fakes.policies import KEY, plain
from tests.fakes.proxy import Running, Starter
from visa_proxy.server import run
from visa_proxy.server.call import Call
from visa_proxy.server.types import Receive, Scope, Send

ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
BODY = orjson.dumps(ASK)
AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + AUTH
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@dataclass
class Line:
    """A bare connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, *, pause_s: float = 0.02, at_most: int = 500) -> None:
        """Sends `data` again and again until the other side closes. Fails when that took it `at_most` times."""
        closed = asyncio.create_task(self.reader.read())
        sent = 0
        while sent < at_most and not closed.done():
            with contextlib.suppress(ConnectionError):
                await self.send(data)
            sent += 1
            await asyncio.sleep(pause_s)
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)
        assert sent < at_most, "it was read on and on"

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, which has a length."""
        async with asyncio.timeout(10):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
            return int(lines[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def refusal(self, status: int, code: str) -> None:
        """The next answer is this error, and the connection ends with it."""
        got, headers, body = await self.reply()
        error = orjson.loads(body)["error"]
        assert (got, error["code"], error["type"]) == (status, code, "invalid_request_error"), body
        assert headers["connection"] == "close" and headers["x-request-id"]
        await self.end()

    async def end(self) -> None:
        """The other side closes; nothing more comes."""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read() == b""


@contextlib.asynccontextmanager
async def served(app: Any, *, buffer: int | None = None) -> AsyncIterator[Line]:
    """A connection to the server with another app behind it."""
    server = run.make_server(app, host=HOST, port=0, guest=True)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        async with connected(server.servers[0].sockets[0].getsockname()[1], buffer) as client:
            yield client
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await serving


def line(proxy: Running, *, buffer: int | None = None) -> contextlib.AbstractAsyncContextManager[Line]:
    """A connection to the proxy."""
    return connected(int(proxy.url.rpartition(":")[2]), buffer)


@contextlib.asynccontextmanager
async def connected(port: int, buffer: int | None) -> AsyncIterator[Line]:
    """`buffer`: bytes that the system receives ahead; small, so that a client that does not read is soon noticed."""
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or 2**20)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def proxy(start: Starter, base: FakeBase) -> Running:
    """One request at a time: a slot that is not given back is noticed."""
    return await start(base.url, text=plain(limits="{concurrent: 1, upload_s: 0.3, header_kb: 2}"))


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(run, "HEAD_S", 0.3)
    return 0.3


async def nothing_is_left(proxy: Running) -> None:
    await until(lambda: proxy.gateway.metrics.in_flight._value.get() == 0, 5, "the end of the request at the proxy")
    await until(lambda: not [task for task in asyncio.all_tasks() if "RequestResponseCycle" in repr(task)], 5, "its tasks' end")
    assert (await proxy.post(ASK)).status == 200, "the slot was not given back"


class TestHeads:
    """Before anybody knows who asks."""

    @pytest.mark.parametrize("first", [b"", b"POST /v1/chat", POST, POST + b"X-Long: a"])
    async def test_a_head_that_does_not_come_to_its_end(self, proxy: Running, short_head: float, first: bytes) -> None:
        async with line(proxy) as client:
            await client.send(first)
            await client.refusal(408, "request_timeout")
        await nothing_is_left(proxy)

    async def test_a_head_that_comes_byte_by_byte(self, proxy: Running, short_head: float) -> None:
        async with line(proxy) as client:
            await client.send(POST + b"X-Long: ")
            await client.drip(b"a")
        await nothing_is_left(proxy)

    async def test_blank_lines_between_requests_do_not_keep_a_connection(self, proxy: Running, short_head: float) -> None:
        async with line(proxy) as client:
            await client.send(WHOLE)
            assert (await client.reply())[0] == 200
            await client.send(b"\r\n")
            await client.refusal(408, "request_timeout")

    async def test_an_idle_connection_stays_for_the_next_request(self, proxy: Running, short_head: float) -> None:
        async with line(proxy) as client:
            for _ in range(2):
                await client.send(WHOLE)
                assert (await client.reply())[0] == 200
                await asyncio.sleep(2 * short_head)

    async def test_the_next_head_waits_for_the_answer_before_it(self, proxy: Running, base: FakeBase, short_head: float) -> None:
        gate = asyncio.Event()

        async def gated(request: web.Request, raw: bytes) -> web.StreamResponse:
            await gate.wait()
            return web.json_response({"n": len(base.seen)})

        base.answer = gated
        async with line(proxy) as client:
            await client.send(WHOLE + WHOLE[:30])
            await asyncio.sleep(2.5 * short_head)
            gate.set()
            assert (await client.reply())[2] == b'{"n": 1}'
            await client.send(WHOLE[30:])
            assert (await client.reply())[2] == b'{"n": 2}'

    @pytest.mark.parametrize(
        ("first", "more"),
        [
            (POST + b"X-Long: ", b"a" * 8192),
            (POST, b"X-Many: a\r\n" * 700),
            (b"GET /v1/models?", b"a" * 8192),
            (b"", b"\r\n" * 4096),
        ],
        ids=["value", "many", "url", "blank"],
    )
    async def test_a_head_without_end(self, proxy: Running, first: bytes, more: bytes) -> None:
        async with line(proxy) as client:
            await client.send(first)
            await client.drip(more, pause_s=0.005, at_most=100)
        await nothing_is_left(proxy)

    @pytest.mark.parametrize("size", [64, 120])
    async def test_a_head_that_is_too_large_and_whole(self, proxy: Running, base: FakeBase, size: int) -> None:
        async with line(proxy) as client:
            await client.send(POST + b"X-Long: " + b"a" * size * 1024 + b"\r\nContent-Length: 0\r\n\r\n")
            await client.refusal(431, "headers_too_large")
        assert not base.seen

    async def test_a_large_body_is_no_large_head(self, start: Starter, base: FakeBase) -> None:
        proxy = await start(base.url, text=plain())
        large = orjson.dumps({**ASK, "user": "x" * 500_000})
        chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (large[i : i + 7] for i in range(0, len(large), 7)))
        async with line(proxy) as client:
            await client.send(POST + b"Content-Length: %d\r\n\r\n" % len(large) + large)
            assert (await client.reply())[0] == 200
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n")
            assert (await client.reply())[0] == 200
        assert [seen.body == large for seen in base.seen] == [True, True]

    @pytest.mark.parametrize(
        ("first", "more"),
        [
            (b"2\r\n{}\r\n0\r\nX-Trailer: ", b"a" * 8192),
            (b"2\r\n{}\r\n0\r\n", b"X-T: a\r\n" * 1000),
            (b"", b"1;e=" + b"a" * 8192 + b"\r\n{\r\n"),
        ],
        ids=["trailer", "trailers", "extensions"],
    )
    async def test_what_comes_beside_the_body_counts_too(self, start: Starter, base: FakeBase, first: bytes, more: bytes) -> None:
        proxy = await start(base.url, text=plain(limits="{concurrent: 1}"))
        async with line(proxy) as client:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + first)
            await client.drip(more, pause_s=0.005, at_most=100)
        assert not base.seen
        await nothing_is_left(proxy)

    async def test_trailers_are_no_headers(self) -> None:
        """Not even for an app that looks at its headers again after the body."""
        seen: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                while (await receive())["more_body"]:
                    pass
                seen.extend(name for name, _ in scope["headers"])
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})

        async with served(app) as client:
            for _ in range(2):
                await client.send(
                    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Late: yes\r\n\r\n"
                )
                assert (await client.reply())[0] == 200
        assert seen == [b"host", b"transfer-encoding"] * 2


class TestTenants:
    """Once it is known who asks."""

    async def test_headers_beyond_the_tenants_limit(self, proxy: Running, base: FakeBase) -> None:
        refused = await proxy.post(ASK, {"X-Long": "a" * 2048})
        assert (refused.status, refused.json["error"]["code"]) == (431, "headers_too_large")
        assert "more than 2 KiB" in refused.json["error"]["message"]
        assert refused.headers["x-visa-tenant"] == "plain" and "x-should-retry" not in refused.headers
        assert (await proxy.get(f"/v1/models?{'a' * 2048}")).status == 431
        assert not base.seen
        assert (await proxy.post(ASK, {"X-Long": "a" * 1024})).status == 200

    @pytest.mark.parametrize("framing", [b"Content-Length: 500\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
    async def test_a_body_that_does_not_come_to_its_end(self, proxy: Running, base: FakeBase, framing: bytes) -> None:
        async with line(proxy) as client:
            await client.send(POST + framing)
            await client.refusal(408, "request_timeout")
        assert not base.seen
        await nothing_is_left(proxy)

    async def test_a_body_that_comes_byte_by_byte(self, proxy: Running, base: FakeBase) -> None:
        async with line(proxy) as client:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            await client.drip(b"1\r\n{\r\n")
        assert not base.seen
        await nothing_is_left(proxy)

    async def test_an_answer_may_take_longer_than_the_body(self, proxy: Running, base: FakeBase) -> None:
        base.answer = streams(*frames([ANSWER]), pause_s=0.02)
        assert (await proxy.post({**ASK, "stream": True})).body.endswith(b"data: [DONE]\n\n")

    async def test_a_body_that_nobody_waits_for(self, proxy: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer came first: without an end to it, the rest could come for ever."""
        monkeypatch.setattr(run, "LINGER_S", 0.3)
        async with line(proxy) as client:
            await client.send(POST.replace(b"sk-", b"no-") + b"Content-Length: 100000\r\n\r\n{")
            assert (await client.reply())[0] == 401
            await client.drip(b"{")

    async def test_a_body_that_comes_after_its_answer_keeps_the_connection(self, proxy: Running) -> None:
        async with line(proxy) as client:
            await client.send(POST.replace(b"sk-", b"no-") + b"Content-Length: %d\r\n\r\n" % len(BODY))
            assert (await client.reply())[0] == 401
            await client.send(BODY + WHOLE)
            assert (await client.reply())[0] == 200

    @pytest.mark.parametrize("name", ["Authorization", "Api-Key", "X-Visa-Profile", "X-Visa-Instruction", "X-Visa-Else"])
    async def test_headers_that_contradict_each_other(self, proxy: Running, base: FakeBase, name: str) -> None:
        def request(first: str, second: str) -> bytes:
            twice = f"{name}: {first}\r\nX-Other: 1\r\nX-Other: 2\r\n{name}: {second}\r\n".encode()
            return POST.replace(AUTH, twice if name == "Authorization" else AUTH + twice) + WHOLE[len(POST) :]

        right = f"Bearer {KEY}" if name == "Authorization" else "off"
        async with line(proxy) as client:
            await client.send(request(right, "Bearer x"))
            status, _, body = await client.reply()
            assert (status, orjson.loads(body)["error"]["code"], orjson.loads(body)["error"]["param"]) == (
                400,
                "invalid_header",
                name,
            )
            assert not base.seen
            if name != "X-Visa-Instruction":
                await client.send(request(right, right))
                assert (await client.reply())[0] == 200

    def test_repeated_headers_stay_as_they_came(self) -> None:
        pairs = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
        scope: dict[str, Any] = {"method": "GET", "path": "/", "query_string": b"", "headers": pairs}
        call = Call(scope, None, None)  # type: ignore[arg-type]
        assert call.raw_headers == pairs and call.headers == {b"a": b"3", b"b": b"2"}


class TestReaders:
    """Clients that do not read."""

    @pytest.fixture
    async def brief(self, start: Starter, base: FakeBase) -> Running:
        return await start(base.url, text=plain(limits="{concurrent: 1, idle_s: 0.5}"))

    @staticmethod
    async def endless(request: web.Request, _: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: " + b"x" * 20_000 + b"\n\n")
            await asyncio.sleep(0)

    async def test_a_stream_that_is_not_read(self, brief: Running, base: FakeBase) -> None:
        base.answer = self.endless
        async with line(brief, buffer=4096) as client:
            await client.send(WHOLE)
            await until(lambda: base.running == 1)
            await until(lambda: base.gone == 1, 10, "the end of the request at the base")
            base.answer = None
            await nothing_is_left(brief)

    async def test_a_stream_that_is_read_slowly(self, brief: Running, base: FakeBase) -> None:
        base.answer = self.endless
        async with line(brief, buffer=4096) as client:
            await client.send(WHOLE)
            await until(lambda: base.running == 1)
            for _ in range(20):
                for _ in range(100):
                    assert await client.reader.read(4096), "it was cut off"
                await asyncio.sleep(0.1)
            assert base.running == 1
        await until(lambda: base.gone == 1, 5)

    async def test_a_whole_answer_that_is_read_slowly(self) -> None:
        """Written in one piece, so that only what is left of it says that the client reads."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope["extensions"]["visa_proxy.idle"]["set"](0.5)
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
                await send({"type": "http.response.body", "body": b"x" * 8_000_000})

        async with served(app, buffer=65536) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(20):
                await client.reader.readexactly(400_000)
                await asyncio.sleep(0.1)

    @pytest.mark.parametrize("keep", [b"", b"Connection: close\r\n"])
    async def test_a_whole_answer_that_is_not_read(self, brief: Running, base: FakeBase, keep: bytes) -> None:
        base.answer = answers(b'"' + b"x" * 8_000_000 + b'"')
        before = set(brief.server.server_state.connections)
        async with line(brief, buffer=4096) as client:
            await client.send(WHOLE.replace(b"Host: x\r\n", b"Host: x\r\n" + keep))
            await until(lambda: len(base.seen) == 1)
            await until(lambda: set(brief.server.server_state.connections) <= before, 10, "the end of the connection")
            base.answer = None
            await nothing_is_left(brief)


class TestIdleBases:
    """`limits.idle_s`, seen from the other side."""

    async def test_after_the_first_byte(self, start: Starter, base: FakeBase) -> None:
        proxy = await start(base.url, text=plain(limits="{concurrent: 1, idle_s: 0.5}"))

        async def halting(request: web.Request, raw: bytes) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(frames([ANSWER])[0])
            return await never(request, raw)

        base.answer = halting
        reply = await proxy.post({**ASK, "stream": True})
        first, *_, last, _ = reply.body.split(b"\n\n")
        assert orjson.loads(first.removeprefix(b"data: "))["choices"] and reply.status == 200
        assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_timeout"
        await until(lambda: base.gone == 1, 2, "the end of the request at the base")
        base.answer = None
        await nothing_is_left(proxy)

    async def test_before_the_first_byte_it_may_think(self, start: Starter, base: FakeBase) -> None:
        proxy = await start(base.url, text=plain(limits="{concurrent: 1, idle_s: 0.2}"))

        async def slow(request: web.Request, _: bytes) -> web.StreamResponse:
            await asyncio.sleep(0.8)
            return web.json_response({"thought": True})

        base.answer = slow
        assert (await proxy.post(ASK)).json == {"thought": True}


class TestTotal:
    """`limits.total_s`."""

    @pytest.fixture
    async def brief(self, start: Starter, base: FakeBase) -> Running:
        return await start(base.url, text=plain(limits="{concurrent: 1, total_s: 0.5}"))

    @pytest.mark.parametrize("stream", [False, True])
    async def test_before_the_first_byte(self, brief: Running, base: FakeBase, stream: bool) -> None:
        base.answer = never
        reply = await brief.post({**ASK, "stream": stream})
        error = {"message": "the request took longer than 0.5 s", "type": "api_error", "param": None, "code": "timeout"}
        assert (reply.status, reply.json) == (504, {"error": error})
        assert reply.headers["x-should-retry"] == "false" and reply.headers["x-visa-tenant"] == "plain"
        await until(lambda: base.gone == 1, 2, "the end of the request at the base")
        base.answer = None
        await nothing_is_left(brief)

    async def test_the_sdk_does_not_repeat_it(self, brief: Running, base: FakeBase) -> None:
        base.answer = never
        with pytest.raises(openai.APIStatusError) as caught:
            await brief.client.with_options(max_retries=2).chat.completions.create(**ASK)
        assert (caught.value.status_code, caught.value.code, len(base.seen)) == (504, "timeout", 1)

    async def test_in_a_stream_of_events(self, brief: Running, base: FakeBase) -> None:
        base.answer = streams(*frames([ANSWER]), pause_s=0.1)
        reply = await brief.post({**ASK, "stream": True})
        assert reply.status == 200
        *_, last, _ = reply.body.split(b"\n\n")
        assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "timeout"
        await until(lambda: base.gone == 1, 2, "the end of the request at the base")
        base.answer = None
        await nothing_is_left(brief)

    async def test_in_another_answer_that_has_begun(self, brief: Running, base: FakeBase) -> None:
        async def half(request: web.Request, _: bytes) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"half":')
            return await never(request, b"")

        base.answer = half
        with pytest.raises(aiohttp.ClientPayloadError):
            await brief.post(ASK)
        base.answer = None
        await nothing_is_left(brief)

    async def test_with_a_client_that_does_not_read(self, brief: Running, base: FakeBase) -> None:
        base.answer = TestReaders.endless
        async with line(brief, buffer=4096) as client:
            await client.send(WHOLE)
            await until(lambda: base.gone == 1, 5, "the end of the request at the base")
            base.answer = None
            await nothing_is_left(brief)

    async def test_a_client_that_goes_is_no_timeout(self, brief: Running, base: FakeBase) -> None:
        base.answer = never
        request = asyncio.create_task(brief.post(ASK))
        await until(lambda: base.running == 1)
        request.cancel()
        await until(lambda: base.gone == 1, 2)
        await until(lambda: b'code="499"' in brief.gateway.metrics.render(), 2)
        assert b'code="504"' not in brief.gateway.metrics.render()
