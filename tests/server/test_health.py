"""Probes, metrics, start and end of the server."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import aiohttp
import orjson
import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, completion, frames, never, streams
from tests.fakes.http import until
from tests.fakes.policies import KEY, plain, policy, write
from tests.fakes.proxy import BASE_KEY, Running, Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import ComponentConfig
from visa_proxy.server.components import Instruments

ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
METRICS = {
    "visa_requests_total",
    "visa_request_duration_seconds_bucket",
    "visa_requests_in_flight",
    "visa_answers_total",
    "visa_stage_duration_seconds_bucket",
    "visa_rewriter_tokens_total",
    "visa_policy_problems",
    "visa_rewriter_ready",
    "visa_rewriter_restarts_total",
}


async def from_afar(proxy: Running, path: str, key: str | None = None) -> Any:
    """The JSON that a client of another machine gets: the app runs, only the address is made up."""
    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "client": ("203.0.113.9", 1)}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await proxy.proxy(scope, receive, send)
    return orjson.loads(b"".join(message.get("body", b"") for message in sent))


async def test_healthy(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    assert (await proxy.get("/healthz", {"Authorization": ""})).json == {"status": "ok"}
    ready = await proxy.get("/readyz")
    assert ready.status == 200
    assert ready.json["status"] == "ok"
    assert ready.json["checks"]["policies"] == {"status": "ok", "tenants": 1, "problems": []}
    assert ready.json["checks"]["components"] == {"status": "not needed"}
    async with proxy.http.post(f"{proxy.url}/healthz") as got:
        assert got.status == 405
        assert (await got.json())["error"]["type"] == "invalid_request_error"
        assert got.headers["x-request-id"]


async def test_a_broken_policy_is_shown_to_those_who_may_see_it(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), admin_key="sk-admin")
    write(proxy.policies, plain().replace("passthrough", "pasthrough"))
    await until(lambda: bool(proxy.gateway.watcher.problems), 3)
    ready = await proxy.get("/readyz")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    found = ready.json["checks"]["policies"]
    assert found["status"] == "error"
    assert re.search(r"acme\.yaml:\d+:\d+", found["problems"][0])
    for key in (None, "sk-wrong", KEY, ""):
        far = await from_afar(proxy, "/readyz", key)
        assert far["checks"]["policies"] == {"status": "error", "tenants": 1, "problems": 1}
    assert (await from_afar(proxy, "/readyz", "sk-admin"))["checks"]["policies"] == found
    assert b"visa_policy_problems 1.0" in (await proxy.get("/metrics")).body
    write(proxy.policies, plain())
    await until(lambda: not proxy.gateway.watcher.problems, 3)
    assert (await proxy.get("/readyz")).json["status"] == "ok"


async def test_without_an_admin_key_strangers_see_no_details(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    for key in (None, "", "None"):
        assert (await from_afar(proxy, "/readyz", key))["checks"]["policies"]["problems"] == 0


async def test_metrics(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments)
    await proxy.post(ASK)
    await proxy.post(ASK, {"X-Visa-Profile": "off"})
    await proxy.post({**ASK, "n": 0})
    await proxy.post(ASK, {"Authorization": "Bearer sk-wrong"})
    await proxy.get("/v1/files/secret-name")
    rewriter.rule = lambda text: text
    await proxy.post(ASK)
    got = await proxy.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = got.body.decode()
    names = {line.partition(" ")[0].partition("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names >= METRICS
    for line in (
        'visa_requests_total{code="200",endpoint="/v1/chat/completions",tenant="acme"} 3.0',
        'visa_requests_total{code="400",endpoint="/v1/chat/completions",tenant="acme"} 1.0',
        'visa_requests_total{code="401",endpoint="/v1/chat/completions",tenant=""} 1.0',
        'visa_requests_total{code="200",endpoint="relay",tenant="acme"} 1.0',
        'visa_answers_total{profile="bold",status="adapted",tenant="acme"} 1.0',
        'visa_answers_total{profile="bold",status="fallback",tenant="acme"} 1.0',
        'visa_answers_total{profile="off",status="passthrough",tenant="acme"} 1.0',
        'visa_rewriter_tokens_total{kind="completion",tenant="acme"} 80.0',
        'visa_stage_duration_seconds_count{stage="verify"} 2.0',
        "visa_requests_in_flight 0.0",
    ):
        assert line in text, text
    for secret in (KEY, BASE_KEY, "secret-name", QUESTION):
        assert secret not in text


async def test_models_that_cannot_be_loaded(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), detector=ComponentConfig("encoder", "/nowhere"))
    write(proxy.policies, policy())
    await until(lambda: proxy.gateway.components.state == "failed: ConfigError", 10)
    ready = await proxy.get("/readyz")
    assert (ready.status, ready.json["status"]) == (503, "not ready")
    reply = await proxy.post(ASK)
    assert (reply.status, reply.headers["x-visa-status"]) == (200, "fallback:not-ready")
    assert reply.json["choices"][0]["message"]["content"] == ANSWER


async def test_policies_that_cannot_be_loaded_stop_the_start(start: Starter, base: FakeBase) -> None:
    with pytest.raises(ConfigError, match=r"acme\.yaml:\d+:\d+"):
        await start(base.url, text=plain().replace("tenant: plain", "tenant: Not A Name"))
    with pytest.raises(ConfigError, match="base"):
        await start(base.url, text=plain() + "base: nobody\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_in_flight_is_finished_before_the_end(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, stream: bool
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, drain_s=30)

    async def slowly(request: Any, raw: bytes) -> Any:
        await asyncio.sleep(0.6)
        return await (streams(*frames([ANSWER])) if stream else answers(completion(ANSWER)))(request, raw)

    base.answer = slowly
    request = asyncio.create_task(proxy.post({**ASK, "stream": stream}))
    await until(lambda: base.running == 1)
    proxy.server.should_exit = True
    reply = await request
    assert reply.status == 200
    assert b'"adapted"' in reply.body
    async with asyncio.timeout(5):
        await proxy.serving
    with pytest.raises(aiohttp.ClientConnectorError):
        await proxy.get("/healthz")


async def test_the_end_waits_no_longer_than_it_may(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), drain_s=1.0)
    base.answer = never
    request = asyncio.create_task(proxy.post(ASK))
    await until(lambda: base.running == 1)
    started = time.monotonic()
    proxy.server.should_exit = True
    async with asyncio.timeout(5):
        await proxy.serving
    assert time.monotonic() - started < 3
    reply = await request
    assert (reply.status, reply.json["error"]["code"]) == (503, "server_stopping")
    await until(lambda: base.running == 0, 2, "the end of the request at the base")
