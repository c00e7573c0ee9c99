"""An app in this process as an endpoint: what it is given, every way in which it can fail, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.http import until
from visa_proxy.errors import UpstreamError, UpstreamTimeout
from visa_proxy.llm.asgi import MAX_UNREAD, App, AsgiEndpoint, Message
from visa_proxy.llm.failover import Failover

CHAT = "/chat/completions"
METHODS = ["GET", "HEAD", "POST", "DELETE"]
Handler = Callable[[Request], Awaitable[Response]]


def app(handler: Handler, **settings: Any) -> Starlette:
    return Starlette(routes=[Route("/v1/{path:path}", handler, methods=METHODS)], **settings)


def streaming(*parts: bytes, pause_s: float = 0.0) -> Handler:
    async def handler(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for part in parts:
                yield part
                await asyncio.sleep(pause_s)

        return StreamingResponse(body(), media_type="text/event-stream")

    return handler


@pytest.fixture(autouse=True)
def short_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.llm.asgi.LEAVE_S", 0.3)


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


async def test_the_key_the_path_and_the_body_arrive_as_given() -> None:
    seen: list[tuple[dict[str, Any], bytes]] = []

    async def handler(request: Request) -> Response:
        seen.append((dict(request.scope), await request.body()))
        return JSONResponse({"ok": True})

    model = AsgiEndpoint(app(handler), api_key="sk-inner")
    assert await model.json("/a%2Fb/%C3%BC?q=%26&x=1", {"text": "ü"}) == {"ok": True}
    scope, body = seen[0]
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/v1/a/b/ü", b"/v1/a%2Fb/%C3%BC")
    assert (scope["query_string"], body) == (b"q=%26&x=1", '{"text":"ü"}'.encode())
    headers = dict(scope["headers"])
    assert headers == {
        b"authorization": b"Bearer sk-inner",
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
        b"host": b"127.0.0.1",
    }


async def test_given_headers_and_bodies_made_for_the_endpoint() -> None:
    async def handler(request: Request) -> Response:
        return JSONResponse({"headers": dict(request.headers), "body": (await request.body()).decode(), "method": request.method})

    model = AsgiEndpoint(app(handler), api_key="sk-inner")
    given = [("X-A", "1"), ("authorization", "Bearer theirs"), ("Content-Type", "text/plain")]
    async with model.request("DELETE", "/x", headers=given, body=lambda endpoint: endpoint.name.encode()) as answer:
        said = json.loads(await answer.read())
    assert (said["method"], said["body"]) == ("DELETE", "base model")
    assert said["headers"]["x-a"] == "1"
    assert said["headers"]["authorization"] == "Bearer sk-inner"
    assert said["headers"]["content-type"] == "text/plain"
    async with AsgiEndpoint(app(handler)).request("GET", "/x") as answer:
        assert not {"authorization", "content-length", "content-type"} & set(json.loads(await answer.read())["headers"])


async def test_the_answer_is_the_apps_own_whatever_its_status() -> None:
    async def handler(request: Request) -> Response:
        answer = JSONResponse({"error": "Unauthorized"}, status_code=401, headers={"X-Two": "a"})
        answer.headers.append("x-two", "b")
        return answer

    async with AsgiEndpoint(app(handler)).request("GET", "/models") as answer:
        assert answer.status == 401
        assert answer.headers.getall("X-Two") == ["a", "b"]
        assert answer.headers["content-length"] == str(len(await answer.read()))


async def test_a_body_comes_part_by_part_and_memoryviews_are_taken() -> None:
    parts: list[Any] = [b"data: 1\n\n", memoryview(b"data: 2\n\n"), b"data: [DONE]\n\n"]
    async with AsgiEndpoint(app(streaming(*parts, pause_s=0.05))).request("POST", CHAT, body=b"{}") as answer:
        came = [chunk async for chunk in answer.chunks()]
    assert came == [bytes(part) for part in parts]


async def test_middleware_that_compresses_and_that_runs_the_app_in_a_task_of_its_own() -> None:
    async def through(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["x-through"] = "yes"
        return answer

    parts = [b"data: %d\n\n" % i for i in range(2000)]
    stack = [Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=through)]
    async with AsgiEndpoint(app(streaming(*parts), middleware=stack)).request("POST", CHAT, body=b"{}") as answer:
        assert await answer.read() == b"".join(parts)
        assert answer.headers["x-through"] == "yes"


async def test_of_a_head_request_there_is_no_body() -> None:
    async def handler(request: Request) -> Response:
        return Response(b"0123456789")

    async with AsgiEndpoint(app(handler)).request("HEAD", "/x") as answer:
        assert answer.headers["content-length"] == "10"
        assert await answer.read() == b""


async def test_an_app_that_waits_for_its_client_to_go_is_not_told_so_before() -> None:
    """As vLLM does: it drops a request whose client has gone."""

    async def handler(request: Request) -> Response:
        await request.body()
        work: asyncio.Future[Any] = asyncio.ensure_future(asyncio.sleep(0.1, "done"))
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        finished, pending = await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return JSONResponse([task.result() for task in finished])

    assert await AsgiEndpoint(app(handler)).json(CHAT, {}) == ["done"]


class TestFaults:
    @pytest.mark.parametrize("caught_inside", [True, False])
    async def test_raising_before_the_answer_is_status_500(self, caught_inside: bool, caplog: pytest.LogCaptureFixture) -> None:
        async def broken(*_: Any) -> Response:
            raise ValueError("secret words")

        broken_app: Any = app(broken) if caught_inside else broken
        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(broken_app).json(CHAT, {})
        assert caught.value.status == 500
        assert "ValueError" in caplog.text and "secret words" not in caplog.text

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [{"type": "http.response.start", "status": 200, "headers": []}],
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": b"{}", "more_body": True}],
        ],
    )
    async def test_ending_before_the_end_of_the_answer(self, messages: list[Message]) -> None:
        async def silent(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)

        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(silent).json(CHAT, {})
        assert (caught.value.status, caught.value.code) == (502, "upstream_garbled")

    @pytest.mark.parametrize("kind", ["http.response.start", "http.response.trailers", "websocket.send"])
    async def test_messages_out_of_turn_break_the_answer_off(self, kind: str) -> None:
        async def wrong(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": kind})

        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(wrong).json(CHAT, {})
        assert caught.value.code == "upstream_garbled"

    async def test_raising_in_the_middle_gives_what_was_sent_and_then_the_error(self) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await asyncio.sleep(0.01)
            raise RuntimeError

        async def handler(request: Request) -> Response:
            return StreamingResponse(body())

        async with AsgiEndpoint(app(handler)).request("POST", CHAT, body=b"{}") as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == b"data: 1\n\n"
            with pytest.raises(UpstreamError) as caught:
                await anext(chunks)
        assert caught.value.code == "upstream_garbled"

    async def test_raising_after_the_whole_answer_takes_nothing_from_it(self, caplog: pytest.LogCaptureFixture) -> None:
        async def later() -> None:
            raise KeyError("x")

        async def handler(request: Request) -> Response:
            return JSONResponse({"ok": True}, background=BackgroundTask(later))

        assert await AsgiEndpoint(app(handler)).json(CHAT, {}) == {"ok": True}
        assert "KeyError" in caplog.text

    async def test_an_app_that_is_cancelled_from_elsewhere(self) -> None:
        async def cancelled(scope: Any, receive: Any, send: Any) -> None:
            raise asyncio.CancelledError

        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(cancelled).json(CHAT, {})
        assert caught.value.code == "upstream_garbled"

    async def test_not_json_and_too_large(self) -> None:
        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(app(streaming(b"\xff\xfe"))).json(CHAT, {})
        assert caught.value.code == "upstream_garbled"
        with pytest.raises(UpstreamError) as caught:
            await AsgiEndpoint(app(streaming(*[b"x" * 65536] * 100))).json(CHAT, {}, max_bytes=500_000)
        assert caught.value.code == "upstream_too_large"

    async def test_deadline_before_the_answer_and_between_its_parts(self) -> None:
        async def never(request: Request) -> Response:
            await asyncio.sleep(60)
            return Response()

        started = time.monotonic()
        with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
            await AsgiEndpoint(app(never), timeout_s=0.2).json(CHAT, {})
        slow = app(streaming(b"data: 1\n\n", b"data: 2\n\n", pause_s=5))
        for timeout_s, idle_s in ((0.2, None), (30, 0.2)):
            async with AsgiEndpoint(slow, timeout_s=timeout_s).request("POST", CHAT, body=b"{}") as answer:
                chunks = answer.chunks(idle_s)
                assert await anext(chunks) == b"data: 1\n\n"
                with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
                    await anext(chunks)
        async with AsgiEndpoint(slow, timeout_s=0.2).request("POST", CHAT, body=b"{}") as answer:
            with pytest.raises(UpstreamTimeout):
                await answer.read()
        assert time.monotonic() - started < 4

    async def test_another_endpoint_is_asked_when_the_app_answers_503(self) -> None:
        async def starting(request: Request) -> Response:
            return Response(status_code=503)

        both = Failover([AsgiEndpoint(app(starting)), AsgiEndpoint(app(streaming(b"[]")))])
        async with both.request("POST", CHAT, body=b"{}") as answer:
            assert await answer.read() == b"[]"


async def _waiting() -> tuple[asyncio.Task[object], asyncio.Event]:
    """Whoever asks an app that does not answer, and what is set when the app ends."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return Response()

    asking: asyncio.Task[object] = asyncio.create_task(AsgiEndpoint(app(handler)).json(CHAT, {}))
    await begun.wait()
    return asking, ended


class TestLeaving:
    async def test_a_stream_ends_at_once_and_says_nothing_of_it(self, caplog: pytest.LogCaptureFixture) -> None:
        ended = asyncio.Event()

        async def handler(request: Request) -> Response:
            async def body() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"data: x\n\n"
                        await asyncio.sleep(0.01)
                finally:
                    ended.set()

            return StreamingResponse(body())

        started = time.monotonic()
        async with AsgiEndpoint(app(handler)).request("POST", CHAT, body=b"{}") as answer:
            await anext(answer.chunks())
        assert ended.is_set()
        assert time.monotonic() - started < 0.9  # it was not waited for until it is cancelled
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    @pytest.mark.parametrize("asks", [True, False])
    async def test_an_app_that_does_not_look_whether_somebody_waits_is_cancelled(self, asks: bool) -> None:
        cancelled = asyncio.Event()

        async def deaf(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    if asks:
                        await asyncio.sleep(0.001)
            finally:
                cancelled.set()

        async with AsgiEndpoint(deaf).request("POST", CHAT, body=b"{}") as answer:
            await anext(answer.chunks())
        assert cancelled.is_set()

    async def test_whoever_is_cancelled_while_it_waits_ends_the_app(self) -> None:
        asking, ended = await _waiting()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ended.is_set()

    async def test_being_cancelled_again_while_leaving_ends_the_app_all_the_same(self) -> None:
        asking, ended = await _waiting()
        for _ in range(2):
            asking.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(ended.is_set, 0.5, "the end of the app")

    async def test_work_after_a_whole_answer_may_take_a_moment(self) -> None:
        done = asyncio.Event()

        async def later() -> None:
            await asyncio.sleep(0.1)
            done.set()

        async def handler(request: Request) -> Response:
            return Response(b"{}", background=BackgroundTask(later))

        await AsgiEndpoint(app(handler)).json(CHAT, {})
        assert done.is_set()


async def test_a_slow_reader_slows_the_app_down() -> None:
    sent = 0

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(16 * 1024), "more_body": True})
            sent += 16 * 1024
        await send({"type": "http.response.body"})

    async with AsgiEndpoint(eager).request("POST", CHAT, body=b"{}") as answer:
        chunks = answer.chunks()
        await asyncio.sleep(0.05)
        assert sent == MAX_UNREAD
        await anext(chunks)
        await asyncio.sleep(0.05)
        assert MAX_UNREAD < sent <= 3 * MAX_UNREAD
        rest = [chunk async for chunk in chunks]
    assert sum(map(len, rest)) + MAX_UNREAD + 16 * 1024 == sent == 100 * 16 * 1024


async def test_many_at_once_do_not_mix() -> None:
    async def handler(request: Request) -> Response:
        number = int(request.query_params["n"])
        return await streaming(*[b"%d " % number] * 20, pause_s=0.001)(request)

    model = AsgiEndpoint(app(handler))

    async def ask(number: int) -> bytes:
        async with model.request("POST", f"{CHAT}?n={number}", body=b"{}") as answer:
            return await answer.read()

    assert await asyncio.gather(*map(ask, range(50))) == [b"%d " % number * 20 for number in range(50)]


async def test_context_goes_in_and_not_out() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = []

    async def handler(request: Request) -> Response:
        seen.append(variable.get())
        variable.set("inside")
        return JSONResponse({})

    variable.set("outside")
    await AsgiEndpoint(app(handler)).json(CHAT, {})
    assert (seen, variable.get()) == (["outside"], "outside")


async def test_the_loop_stays_free_beside_an_app_that_never_waits() -> None:
    async def greedy(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1024), "more_body": True})

    greedy_app: App = greedy
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    async with AsgiEndpoint(greedy_app).request("POST", CHAT, body=b"{}") as answer:
        read = 0
        async for chunk in answer.chunks():
            read += len(chunk)
            if read > 100 * MAX_UNREAD:
                break
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking
    assert ticks > 10, "it also ran while the app was left"
