"""An OpenAI-compatible endpoint: what is sent, and every way in which an answer can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import FakeBase, answers, never, streams
from tests.fakes.http import HOST, closed_port, sending, sends, serving, until
from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable, error_body
from visa_proxy.llm.http import HttpEndpoint, new_session

CHAT = "/chat/completions"


@contextlib.asynccontextmanager
async def endpoint(url: str, *, timeout_s: float = 5.0, api_key: str | None = None) -> AsyncIterator[HttpEndpoint]:
    async with new_session() as session:
        yield HttpEndpoint(session, url, api_key=api_key, timeout_s=timeout_s)


async def test_the_key_the_path_and_the_body_arrive_as_given(base: FakeBase) -> None:
    base.answer = answers({"ok": True})
    async with endpoint(base.url + "/", api_key="sk-base") as model:
        assert await model.json("/a%2Fb/%C3%BC?q=%26&x=1", {"text": "ü"}) == {"ok": True}
    seen = base.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/a%2Fb/%C3%BC?q=%26&x=1", '{"text":"ü"}'.encode())
    assert seen.header("authorization") == "Bearer sk-base"
    assert seen.header("content-type") == "application/json"
    assert not {"user-agent", "accept-encoding", "cookie"} & {name for name, _ in seen.headers}


async def test_bodies_stay_compressed_cookies_are_forgotten_redirects_not_followed(base: FakeBase) -> None:
    squeezed = gzip.compress(b'{"a": 1}')
    base.answer = answers(squeezed, 302, {"Content-Encoding": "gzip", "Set-Cookie": "a=b; Path=/", "Location": "/elsewhere"})
    async with endpoint(base.url) as model:
        for _ in range(2):
            async with model.request("GET", "/x") as answer:
                assert answer.status == 302
                assert await answer.read() == squeezed
    assert [seen.path for seen in base.seen] == ["/v1/x", "/v1/x"]
    assert base.seen[1].header("cookie") is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"error": {"message": "Bad n.", "type": "invalid_request_error", "param": "n", "code": "bad_n"}},
            ("Bad n.", "invalid_request_error", "n", "bad_n"),
        ),
        # vLLM: integer codes, a string instead of an object, its older flat form.
        (404, {"error": {"message": "No model.", "type": "NotFoundError", "param": None, "code": 404}},
         ("No model.", "NotFoundError", None, "404")),
        (401, {"error": "Unauthorized"}, ("Unauthorized", "upstream_error", None, None)),
        (400, {"object": "error", "message": "Too long.", "type": "BadRequestError", "param": None, "code": 400},
         ("Too long.", "BadRequestError", None, "400")),
        # LiteLLM says "None" for None.
        (500, {"error": {"message": "Boom.", "type": "None", "param": "None", "code": "500"}},
         ("Boom.", "upstream_error", None, "500")),
        (404, {"detail": "Not Found"}, ("Not Found", "upstream_error", None, None)),
        (422, {"detail": [{"loc": ["n"], "msg": "x"}]}, ('[{"loc":["n"],"msg":"x"}]', "upstream_error", None, None)),
        (503, b"<html>busy</html>", ("the base model answered with status 503", "upstream_error", None, None)),
        (500, b"", ("the base model answered with status 500", "upstream_error", None, None)),
        (500, b"[1]", ("the base model answered with status 500", "upstream_error", None, None)),
        (500, {"error": None}, ("the base model answered with status 500", "upstream_error", None, None)),
        (500, {"error": {}}, ("the base model answered with status 500", "upstream_error", None, None)),
    ],
)  # fmt: skip
async def test_error_answers_become_openai_errors(
    base: FakeBase, status: int, body: Any, expected: tuple[str, str, str | None, str | None]
) -> None:
    base.answer = answers(body if isinstance(body, bytes) else json.dumps(body).encode(), status)
    async with endpoint(base.url) as model:
        with pytest.raises(UpstreamError) as caught:
            await model.json(CHAT, {})
    assert caught.value.status == status
    error = error_body(caught.value)["error"]
    assert (error["message"], error["type"], error["param"], error["code"]) == expected


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Bad n.", "type": "invalid_request_error", "param": "n", "code": "bad_n"},
        {"message": "Bad n.", "type": None, "param": None, "code": None, "inner": {"status": 400}},
    ],
)
async def test_an_error_in_the_right_shape_stays_as_it_is(base: FakeBase, error: Any) -> None:
    async with endpoint(base.url) as model:
        assert model.normalise(400, json.dumps({"error": error}, indent=4).encode()) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"busy", {"message": "the base model answered with status 503", "type": "upstream_error", "param": None, "code": None}),
        ({"error": "No."}, {"message": "No.", "type": "upstream_error", "param": None, "code": None}),
        (
            {"error": {"message": "No.", "type": "T", "param": None, "code": 404}},
            {"message": "No.", "type": "T", "param": None, "code": "404"},
        ),
        (
            {"error": {"message": "No.", "type": "None", "param": "None", "code": "None"}},
            {"message": "No.", "type": "upstream_error", "param": None, "code": None},
        ),
        (
            {"error": {"message": "None", "type": "T", "param": None, "code": None}},
            {"message": "the base model answered with status 503", "type": "T", "param": None, "code": None},
        ),
        (
            {"error": {"message": "No.", "type": "T", "code": "c", "innererror": {"a": [1]}}},
            {"message": "No.", "type": "T", "param": None, "code": "c", "innererror": {"a": [1]}},
        ),
        (
            {"object": "error", "message": "Too long.", "type": "B", "param": None, "code": 400},
            {"message": "Too long.", "type": "B", "param": None, "code": "400"},
        ),
    ],
)
async def test_an_error_in_another_shape_gets_the_right_one(base: FakeBase, body: Any, expected: Any) -> None:
    async with endpoint(base.url) as model:
        raw = model.normalise(503, body if isinstance(body, bytes) else json.dumps(body).encode())
        assert raw is not None and json.loads(raw) == {"error": expected}
        assert model.normalise(503, raw) is None, "what it made is not in the right shape"


async def test_a_stream_may_stand_still_for_less_than_the_endpoints_timeout(base: FakeBase) -> None:
    async with endpoint(base.url, timeout_s=30) as model:
        base.answer = streams(*[b"data: x\n\n"] * 8, pause_s=0.1)
        async with model.request("POST", CHAT, body=b"{}") as answer:
            assert b"".join([chunk async for chunk in answer.chunks(idle_s=0.5)]) == b"data: x\n\n" * 8
        base.answer = streams(b"data: 1\n\n", b"data: 2\n\n", pause_s=20)
        started = time.monotonic()
        async with model.request("POST", CHAT, body=b"{}") as answer:
            chunks = answer.chunks(idle_s=0.5)
            assert await anext(chunks) == b"data: 1\n\n"
            await asyncio.sleep(0.8)  # the reader's own time does not count
            with pytest.raises(UpstreamTimeout, match=r"within 0\.5 s"):
                await anext(chunks)
        assert time.monotonic() - started < 10
    await until(lambda: base.running == 0, 2, "the end of the requests at the base")


async def test_retry_headers_go_with_the_error(base: FakeBase) -> None:
    base.answer = answers(
        {"error": {"message": "Slow down."}}, 429, {"Retry-After": "7", "X-Should-Retry": "true", "X-Other": "no"}
    )
    async with endpoint(base.url) as model:
        with pytest.raises(UpstreamError) as caught:
            await model.json(CHAT, {})
    assert caught.value.headers == {"retry-after": "7", "x-should-retry": "true"}


async def test_nobody_listens() -> None:
    async with endpoint(f"http://{HOST}:{closed_port()}/v1") as model:
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            await model.json(CHAT, {})


@pytest.mark.parametrize(
    ("sent", "error", "code"),
    [
        (b"", UpstreamUnavailable, "upstream_unavailable"),
        (b"HTTP/1.1 OK? what\r\n\r\n", UpstreamError, "upstream_garbled"),
        (b"\x00\xff\x01 nonsense\r\n\r\n", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\"", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", UpstreamError, "upstream_garbled"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{", UpstreamError, "upstream_garbled"),
    ],
)  # fmt: skip
async def test_garbled_answers(sent: bytes, error: type[UpstreamError], code: str) -> None:
    async with sending(sends(sent)) as url, endpoint(url) as model:
        with pytest.raises(error) as caught:
            await model.json(CHAT, {})
    assert caught.value.code == code


async def test_deadline_before_the_first_byte_and_between_chunks(base: FakeBase) -> None:
    async with endpoint(base.url, timeout_s=0.2) as model:
        started = time.monotonic()
        base.answer = never
        with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
            await model.json(CHAT, {})
        base.answer = streams(b"data: 1\n\n", b"data: 2\n\n", pause_s=5)
        async with model.request("POST", CHAT, body=b"{}") as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == b"data: 1\n\n"
            with pytest.raises(UpstreamTimeout):
                await anext(chunks)
        async with model.request("POST", CHAT, body=b"{}") as answer:
            with pytest.raises(UpstreamTimeout):
                await answer.read()
        assert time.monotonic() - started < 3
    await until(lambda: base.running == 0, 1, "the end of the requests at the base")


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_that_is_too_large_is_not_read_to_its_end(declared: bool) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if declared:
            response.content_length = 10**9
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            await asyncio.sleep(0)

    app = web.Application()
    app.router.add_post(CHAT, endless)
    async with serving(app) as url, endpoint(url) as model:
        with pytest.raises(UpstreamError) as caught:
            await model.json(CHAT, {}, max_bytes=500_000)
    assert caught.value.code == "upstream_too_large"


async def test_leaving_early_closes_the_connection(base: FakeBase) -> None:
    base.answer = streams(*[b"data: x\n\n"] * 1000, pause_s=0.01)
    async with endpoint(base.url) as model, model.request("POST", CHAT, body=b"{}") as answer:
        await anext(answer.chunks())
    await until(lambda: base.running == 0, 1, "the end of the request at the base")


async def test_a_connection_is_used_again_after_a_whole_answer(base: FakeBase) -> None:
    ports = set()

    async def answer(request: web.Request, _: bytes) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.json_response({})

    base.answer = answer
    async with endpoint(base.url) as model:
        for _ in range(3):
            await model.json(CHAT, {})
    assert len(ports) == 1
