"""A base model that is down, slow, garbled or refuses: its status in OpenAI's shape, within the deadline, streamed or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, chunk, delta, event, frames, never, streams
from tests.fakes.http import HOST, closed_port, sending, sends, serving, until
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Reply, Running, config_for, running
from visa_proxy.policy.config import Endpoint
from visa_proxy.server.components import Instruments

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT_S = 0.4
ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
PROFILES = ["bold", "off"]
Stack = tuple[Running, FakeBase, "Raw"]


@dataclass
class Raw:
    """A base that sends these bytes."""

    parts: tuple[bytes, ...] = ()

    async def reply(self, writer: asyncio.StreamWriter) -> None:
        await sends(*self.parts)(writer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stack]:
    """One proxy with three bases: an obedient one, one that sends any bytes, one that is down."""
    folder, base, raw = tmp_path_factory.mktemp("policies"), FakeBase(), Raw()
    for name in ("default", "raw", "down"):
        write(folder, policy(tenant=name, key=f"sk-{name}", extra=f"base: {name}"), f"{name}.yaml")
    async with serving(base.app()) as url, sending(raw.reply) as raw_url:
        urls = {"default": url, "raw": raw_url, "down": f"http://{HOST}:{closed_port()}"}
        bases = {name: Endpoint(f"{each}/v1", timeout_s=TIMEOUT_S) for name, each in urls.items()}
        config = config_for(url, None, folder, base_timeout_s=TIMEOUT_S, bases=bases)
        async with running(config, instruments) as proxy:
            yield proxy, base, raw


async def ask(stack: Stack, tenant: str, profile: str, *, stream: bool) -> Reply:
    headers = {"Authorization": f"Bearer sk-{tenant}", "X-Visa-Profile": profile}
    started = time.monotonic()
    reply = await stack[0].post({**ASK, "stream": stream}, headers)
    assert time.monotonic() - started < TIMEOUT_S + 2
    assert reply.headers["x-request-id"]
    return reply


def error_of(data: Any) -> dict[str, Any]:
    assert set(data) == {"error"}
    error: dict[str, Any] = data["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
async def test_down(stack: Stack, profile: str, stream: bool) -> None:
    reply = await ask(stack, "down", profile, stream=stream)
    assert (reply.status, error_of(reply.json)["code"]) == (503, "upstream_unavailable")
    assert str(HOST) not in reply.body.decode(), "where the base listens is none of the client's business"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
async def test_slow(stack: Stack, profile: str, stream: bool) -> None:
    stack[1].answer = never
    reply = await ask(stack, "default", profile, stream=stream)
    assert (reply.status, error_of(reply.json)["code"]) == (504, "upstream_timeout")
    await until(lambda: stack[1].running == 0, 1, "the end of the request at the base")


REFUSALS: list[tuple[int, Any, dict[str, Any]]] = [
    (400, {"error": {"message": "Bad.", "type": "invalid_request_error", "param": "top_p", "code": "x"}},
     {"message": "Bad.", "type": "invalid_request_error", "param": "top_p", "code": "x"}),
    (401, {"error": "Unauthorized"}, {"message": "Unauthorized", "code": None}),
    (404, {"error": {"message": "No model.", "type": "NotFoundError", "param": None, "code": 404}},
     {"message": "No model.", "type": "NotFoundError", "code": "404"}),
    (429, {"error": {"message": "Slow down."}}, {"message": "Slow down."}),
    (500, b"<html>oops</html>", {"message": "the base model answered with status 500", "type": "upstream_error"}),
    (503, b"", {"message": "the base model answered with status 503"}),
    (418, [1], {"message": "the base model answered with status 418"}),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "body", "expected"), REFUSALS)
async def test_its_refusals_are_passed_on(stack: Stack, status: int, body: Any, expected: dict[str, Any], stream: bool) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    stack[1].answer = answers(raw, status, {"Retry-After": "7"})
    reply = await ask(stack, "default", "bold", stream=stream)
    assert reply.status == status
    assert expected.items() <= error_of(reply.json).items()
    assert reply.headers["retry-after"] == "7"


async def test_the_sdk_raises_its_own_errors(stack: Stack) -> None:
    proxy, base, _ = stack
    client = proxy.client.with_options(api_key="sk-default")
    for status, error in [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ]:
        base.answer = answers({"error": {"message": "No.", "code": status}}, status)
        for stream in (False, True):
            with pytest.raises(error) as caught:
                await client.chat.completions.create(**ASK, stream=stream)
            assert caught.value.code == str(status)


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
GARBLED: list[tuple[str, tuple[bytes, ...], int]] = [
    ("no-answer", (b"",), 503),
    ("no-http", (b"\x00\x01\x02 hello\r\n\r\n",), 502),
    ("no-json", (OK + b"Content-Length: 7\r\n\r\nnot jso",), 502),
    ("not-utf8", (OK + b"Content-Length: 3\r\n\r\n\xff\xfe{",), 502),
    ("empty", (OK + b"Content-Length: 0\r\n\r\n",), 502),
    ("cut", (OK + b'Content-Length: 500\r\n\r\n{"choices": [', b'{"mess'), 502),
    ("cut-chunk", (OK + b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"choice', b""), 502),
    ("bad-chunk", (OK + b"Transfer-Encoding: chunked\r\n\r\nXYZ\r\n{}\r\n",), 502),
    ("list", (OK + b"Content-Length: 2\r\n\r\n[]",), 502),
    ("null", (OK + b"Content-Length: 4\r\n\r\nnull",), 502),
    ("no-choices", (OK + b'Content-Length: 13\r\n\r\n{"choices":1}',), 502),
    ("odd-choice", (OK + b'Content-Length: 15\r\n\r\n{"choices":[1]}',), 502),
    ("no-message", (OK + b'Content-Length: 16\r\n\r\n{"choices":[{}]}',), 502),
]


@pytest.mark.parametrize(("parts", "status"), [pytest.param(*rest, id=name) for name, *rest in GARBLED])
async def test_garbled_answers(stack: Stack, parts: tuple[bytes, ...], status: int) -> None:
    stack[2].parts = parts
    reply = await ask(stack, "raw", "bold", stream=False)
    error = error_of(reply.json)
    assert (reply.status, error["code"]) == (status, "upstream_unavailable" if status == 503 else "upstream_garbled")


FIRST = event(chunk(delta(0, role="assistant", content="Rinse the ")))
CUT: list[tuple[str, list[bytes], str]] = [
    ("no-json", [FIRST, b"data: {not json}\n\n"], "upstream_garbled"),
    ("not-utf8", [FIRST, b"data: \xff\xfe\n\n"], "upstream_garbled"),
    ("list", [FIRST, b"data: []\n\n"], "upstream_garbled"),
    ("number", [FIRST, b"data: 5\n\n"], "upstream_garbled"),
    ("odd-choices", [FIRST, b'data: {"choices": [5]}\n\n'], "upstream_garbled"),
    ("no-index", [FIRST, b'data: {"choices": [{"delta": {}}]}\n\n'], "upstream_garbled"),
    ("odd-delta", [FIRST, b'data: {"choices": [{"index": 0, "delta": "x"}]}\n\n'], "upstream_garbled"),
    ("ends-early", [FIRST], "upstream_garbled"),
    ("ends-in-event", [FIRST, FIRST[:30]], "upstream_garbled"),
    ("nothing", [], "upstream_garbled"),
    ("error", [FIRST, event({"error": {"message": "Out of memory.", "type": "server_error", "code": 500}})], "500"),
    ("error-string", [FIRST, event({"error": "Out of memory."})], ""),
]


@pytest.mark.parametrize(("parts", "code"), [pytest.param(*rest, id=name) for name, *rest in CUT])
async def test_streams_that_go_wrong_end_with_an_error(stack: Stack, parts: list[bytes], code: str) -> None:
    stack[1].answer = streams(*parts, pause_s=0.005)
    reply = await ask(stack, "default", "bold", stream=True)
    # An error that comes first is an HTTP error; later it is the last event, and no text is sent before it.
    assert reply.status == (502 if not parts else 200)
    data = [json.loads(part.removeprefix(b"data: ")) for part in reply.body.split(b"\n\n") if part.strip()]
    assert all(not choice["delta"].get("content") for each in data[:-1] for choice in each["choices"])
    error = error_of(data[-1])
    assert error["code"] == (code or None)
    if code != "upstream_garbled":
        assert error["message"] == "Out of memory."
    client = stack[0].client.with_options(api_key="sk-default")
    with pytest.raises(openai.APIError):
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass


async def test_a_cut_connection_in_a_stream(stack: Stack) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    stack[2].parts = (head, b"%x\r\n%s\r\n" % (len(FIRST), FIRST), b"500\r\ndata: {")
    rewritten = await ask(stack, "raw", "bold", stream=True)
    assert error_of(json.loads(rewritten.body.strip().rpartition(b"data: ")[2]))["code"] == "upstream_garbled"
    # Passed through: what came, then the error, in an event of its own.
    relayed = await ask(stack, "raw", "off", stream=True)
    assert relayed.body.startswith(FIRST)
    last = relayed.body.strip().rpartition(b"\n\n")[2]
    assert error_of(json.loads(last[6:]))["code"] == "upstream_garbled"


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_stream_that_stalls_ends_within_the_deadline(stack: Stack, profile: str) -> None:
    stack[1].answer = streams(FIRST, FIRST, pause_s=30)
    reply = await ask(stack, "default", profile, stream=True)
    last = reply.body.strip().rpartition(b"\n\n")[2]
    assert error_of(json.loads(last[6:]))["code"] == "upstream_timeout"
    assert reply.body.startswith(FIRST) == (profile == "off")
    await until(lambda: stack[1].running == 0, 1, "the end of the request at the base")


async def test_a_stream_may_take_longer_than_the_deadline_while_it_moves(stack: Stack) -> None:
    parts = frames([" ".join(ANSWER.split()[:8])])
    stack[1].answer = streams(*parts, pause_s=0.08)
    started = time.monotonic()
    headers = {"Authorization": "Bearer sk-default"}
    reply = await stack[0].post({**ASK, "stream": True}, {**headers, "X-Visa-Profile": "off"})
    assert time.monotonic() - started > TIMEOUT_S
    assert reply.body == b"".join(parts)


async def test_models_of_a_base_that_fails(stack: Stack) -> None:
    proxy, base, _ = stack
    for answer, status in [(answers(b"[]"), 502), (answers({"error": "No."}, 401), 401), (never, 504)]:
        base.answer = answer
        reply = await proxy.get("/v1/models", {"Authorization": "Bearer sk-default"})
        assert reply.status == status
        error_of(reply.json)
    assert (await proxy.get("/v1/models", {"Authorization": "Bearer sk-down"})).status == 503


async def test_afterwards_nothing_is_left_running(stack: Stack) -> None:
    proxy, base, _ = stack
    assert isinstance(proxy.http, aiohttp.ClientSession)
    base.answer = None
    assert (await ask(stack, "default", "off", stream=False)).status == 200
    assert proxy.gateway.metrics.in_flight._value.get() == 0
