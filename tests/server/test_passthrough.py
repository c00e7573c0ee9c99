"""A passthrough profile, and every surface that is not rewritten: bytes unchanged in both directions."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.fakes.base import QUESTION, FakeBase, answers, streams
from tests.fakes.http import sending, sends
from tests.fakes.policies import KEY, plain, policy
from tests.fakes.proxy import BASE_KEY, Running, Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.server.components import Instruments

CHAT = "/v1/chat/completions"
ODD = (
    b'{ "model" :"sample",\n\t"messages":[{"role":"user","content":"caf\\u00e9 \xf0\x9f\x8e\x88 1e400"}] ,"n":1,'
    b' "x":0.10000000000000000001 }\r\n'
)


@pytest.fixture
async def proxy(start: Starter, base: FakeBase) -> Running:
    return await start(base.url, text=plain())


async def test_json_is_byte_identical_both_ways(proxy: Running, base: FakeBase) -> None:
    answer = b'{"choices" : [ {"message":{"content":"caf\\u00e9"}} ],\n "big":123456789012345678901234567890, "a":1, "a":2}\n\n'
    base.answer = answers(answer)
    reply = await proxy.post(ODD)
    assert base.seen[0].body == ODD
    assert (reply.status, reply.body) == (200, answer)
    assert reply.headers["x-visa-status"] == "passthrough"
    assert int(reply.headers["content-length"]) == len(answer)


async def test_sse_is_byte_identical_whatever_its_chunks(proxy: Running, base: FakeBase) -> None:
    parts = [
        b"da",
        b'ta: {"a"',
        b": 1}\n",
        b"\n: ping\r\n\r\nevent: x\rdata: \xf0\x9f",
        b"\x8e\x88\n\n\n\n",
        b"data: [DONE]",
        b"\n\nrest",
    ]
    base.answer = streams(*parts, pause_s=0.01)
    async with proxy.http.post(proxy.url + CHAT, data=ODD) as got:
        first = await got.content.readany()
        assert first in (b"da", b'data: {"a"')  # what has come is passed on at once
        assert first + await got.read() == b"".join(parts)
        assert got.headers["content-type"].startswith("text/event-stream")


async def test_nothing_is_buffered(proxy: Running, base: FakeBase) -> None:
    base.answer = streams(b"data: 1\n\n", b"data: 2\n\n", pause_s=3)
    async with proxy.http.post(proxy.url + CHAT, data=ODD) as got:
        assert await got.content.readany() == b"data: 1\n\n"


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_compressed_answers_stay_compressed(proxy: Running, base: FakeBase, kind: str) -> None:
    squeezed = gzip.compress(b'data: {"a": 1}\n\n')
    base.answer = answers(squeezed, headers={"Content-Encoding": "gzip", "Content-Type": kind})
    reply = await proxy.post(ODD, {"Accept-Encoding": "gzip"})
    assert reply.body == squeezed
    assert reply.headers["content-encoding"] == "gzip"
    assert base.seen[0].header("accept-encoding") == "gzip"


async def test_the_headers_that_reach_the_base(proxy: Running, base: FakeBase) -> None:
    given = {
        "api-key": KEY,
        "Cookie": "a=b",
        "X-Visa-Profile": "off",
        "X-Visa-Unit": "u1",
        "X-Visa-Whatever": "x",
        "OpenAI-Organization": "org-1",
        "User-Agent": "mine/1.0",
        "Traceparent": "00-abc",
        "Connection": "keep-alive",
        "TE": "trailers",
    }
    await proxy.post(ODD, given)
    headers = dict(base.seen[0].headers)
    assert headers["authorization"] == f"Bearer {BASE_KEY}"
    assert KEY not in json.dumps(headers)
    assert not [name for name in headers if name.startswith("x-visa-")]
    assert not {"api-key", "cookie", "te"} & set(headers)
    assert (headers["openai-organization"], headers["user-agent"], headers["traceparent"]) == ("org-1", "mine/1.0", "00-abc")
    assert headers["host"] in base.url
    assert int(headers["content-length"]) == len(ODD)


async def test_the_headers_that_come_back(proxy: Running, base: FakeBase) -> None:
    base.answer = answers({}, headers={"X-RateLimit-Remaining": "5", "openai-processing-ms": "9", "Set-Cookie": "a=b",
                                       "X-Visa-Status": "forged", "X-Request-Id": "theirs", "Server": "base"})  # fmt: skip
    reply = await proxy.post(ODD, {"X-Request-Id": "mine"})
    assert (reply.headers["x-ratelimit-remaining"], reply.headers["openai-processing-ms"]) == ("5", "9")
    assert reply.headers.getall("x-request-id") == ["mine"]
    assert reply.headers.getall("x-visa-status") == ["passthrough"]
    assert not {"set-cookie", "server"} & {name.lower() for name in reply.headers}


@pytest.mark.parametrize("status", [201, 302, 400, 401, 404, 422, 429, 500, 503])
async def test_every_status_of_the_base_is_passed_on(proxy: Running, base: FakeBase, status: int) -> None:
    body = b'{ "error": {"message": "As it was.", "type":"x", "param":null, "code": null, "more": 1} }'
    base.answer = answers(body, status, {"Retry-After": "3", "Location": "/elsewhere"})
    async with proxy.http.post(proxy.url + CHAT, data=ODD, allow_redirects=False) as got:
        assert (got.status, await got.read()) == (status, body)
        assert got.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": "Unauthorized"}', {"message": "Unauthorized", "type": "upstream_error", "param": None, "code": None}),
        (
            b'{"error": {"message": "No.", "type": "None", "param": "None", "code": 404}}',
            {"message": "No.", "type": "upstream_error", "param": None, "code": "404"},
        ),
        (
            b"<html>",
            {"message": "the base model answered with status 404", "type": "upstream_error", "param": None, "code": None},
        ),
    ],
)
async def test_errors_that_clients_cannot_read_are_put_into_openai_s_form(
    proxy: Running, base: FakeBase, body: bytes, error: dict[str, Any]
) -> None:
    base.answer = answers(body, 404)
    reply = await proxy.post(ODD)
    assert (reply.status, reply.json) == (404, {"error": error})


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, 3_000_000])
async def test_bodies_of_any_size(proxy: Running, base: FakeBase, size: int) -> None:
    base.answer = answers(b"x" * size)
    reply = await proxy.post(b'{"model":"sample","messages":[{"role":"user","content":"' + b"y" * size + b'"}]}')
    assert reply.body == b"x" * size
    assert len(base.seen[0].body) > size


async def test_only_the_models_suffix_is_taken_off(proxy: Running, base: FakeBase) -> None:
    await proxy.post({"model": "sample@off", "messages": [{"role": "user", "content": QUESTION}], "x": [1, None]})
    body = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}], "x": [1, None]}
    assert json.loads(base.seen[0].body) == body


RELAYED: list[tuple[str, str, bytes]] = [
    ("POST", "/v1/embeddings?api-version=1&x=%20", b'{ "input": "x" }'),
    ("POST", "/v1/audio/speech", b"not even json"),
    ("GET", "/v1/files/file-1%2F2/content?a=%C3%BC", b""),
    ("DELETE", "/v1/files/file-1", b""),
    ("PUT", "/v1/vector_stores/a%20b", b"\x00\xff"),
    ("HEAD", "/v1/files", b""),
]


@pytest.mark.parametrize(("method", "path", "body"), RELAYED)
async def test_other_surfaces_are_relayed(proxy: Running, base: FakeBase, method: str, path: str, body: bytes) -> None:
    base.answer = answers(b'{ "as": "it is" }')
    async with proxy.http.request(method, URL(proxy.url + path, encoded=True), data=body or None) as got:
        assert got.status == 200
        assert await got.read() == (b"" if method == "HEAD" else b'{ "as": "it is" }')
        assert got.headers["x-visa-status"] == "passthrough"
    seen = base.seen[0]
    assert (seen.method, seen.path, seen.body) == (method, path, body)


async def test_a_multipart_upload(proxy: Running, base: FakeBase) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n\x00\xff\r\n--b--\r\n'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(form), 10):
            yield form[start : start + 10]

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with proxy.http.post(f"{proxy.url}/v1/files", data=pieces(), headers=headers) as got:
        assert got.status == 200
    assert (base.seen[0].body, base.seen[0].header("content-type")) == (form, "multipart/form-data; boundary=b")


async def test_surfaces_with_answers_that_are_not_rewritten_say_so(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy())
    for path in ("/v1/messages", "/v1/conversations", "/v1/responses/compact", "/v1/chat/completions/x"):
        assert (await proxy.post({"model": "sample"}, path=path)).headers["x-visa-status"] == "skipped:surface"
    assert (await proxy.post({"input": "x"}, path="/v1/embeddings")).headers["x-visa-status"] == "passthrough"


async def test_an_answer_that_breaks_off_is_never_taken_for_whole(start: Starter) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n"
    ask: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
    for kind, extra in ((b"application/json", b""), (b"text/event-stream", b"Content-Encoding: gzip\r\n")):
        async with sending(sends(head % (kind, extra), b"9\r\ndata: 1\n\n\r\n", b"50\r\ncut")) as url:
            proxy = await start(f"{url}/v1", text=plain())
            async with proxy.http.post(proxy.url + CHAT, json=ask) as got:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await got.read()


async def test_unused_models_are_never_loaded(proxy: Running) -> None:
    assert proxy.gateway.components.state == "not needed"
    reply = await proxy.post({"answer": "x"}, path="/v1/visa/detect")
    assert (reply.status, reply.json["error"]["code"]) == (503, "not_ready")
