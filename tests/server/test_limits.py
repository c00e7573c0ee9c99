"""Requests a minute and requests at once, per tenant."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.base import QUESTION, FakeBase, answers, never
from tests.fakes.http import until
from tests.fakes.policies import plain, write
from tests.fakes.proxy import Starter
from visa_proxy.errors import (
    DeadlineExceeded,
    HeadersTooLarge,
    NotReady,
    PayloadTooLarge,
    RateLimited,
    RequestError,
    RequestTimeout,
    RewriteRefused,
    Stopping,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    VisaError,
)
from visa_proxy.policy.load import load_policy
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.limits import Limiter

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


def tenant(folder: Path, limits: str, name: str = "plain") -> Tenant:
    return load_policy(write(folder, plain(limits=limits).replace("tenant: plain", f"tenant: {name}")))


def test_the_bucket_refills(tmp_path: Path) -> None:
    now = 1000.0
    limiter = Limiter(clock=lambda: now)
    busy = tenant(tmp_path, "{requests_per_minute: 3}")
    for _ in range(3):
        with limiter.enter(busy):
            pass
    with pytest.raises(RateLimited, match="3 requests a minute") as caught:
        limiter.enter(busy)
    assert 0 < int(caught.value.headers["retry-after"]) <= 21
    assert 19_000 <= int(caught.value.headers["retry-after-ms"]) <= 20_000
    with limiter.enter(tenant(tmp_path, "{requests_per_minute: 3}", "other")):
        pass
    now += 20.5
    with limiter.enter(busy):
        pass
    with pytest.raises(RateLimited):
        limiter.enter(busy)
    now += 3600
    for _ in range(3):
        with limiter.enter(busy):
            pass
    with pytest.raises(RateLimited):
        limiter.enter(busy)


def test_slots_and_a_changed_policy(tmp_path: Path) -> None:
    limiter = Limiter()
    one = tenant(tmp_path, "{concurrent: 1}")
    with limiter.enter(one):
        with pytest.raises(RateLimited, match="1 requests at once"):
            limiter.enter(one)
        with limiter.enter(tenant(tmp_path, "{concurrent: 2}")):
            pass
    with pytest.raises(ZeroDivisionError), limiter.enter(one):
        raise ZeroDivisionError
    with limiter.enter(one):
        pass


async def test_too_many_at_once(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(limits="{concurrent: 2}"))
    base.answer = never
    running = [asyncio.create_task(proxy.post(ASK)) for _ in range(2)]
    await until(lambda: base.running == 2)
    refused = await proxy.post(ASK)
    assert refused.status == 429
    assert refused.json["error"] == {
        "message": "Rate limit reached for this tenant: more than 2 requests at once.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-request-id"]
    with pytest.raises(openai.RateLimitError):
        await proxy.client.chat.completions.create(**ASK)
    for request in running:
        request.cancel()
    await until(lambda: base.gone == 2, 2)
    base.answer = None
    await until(lambda: proxy.gateway.metrics.in_flight._value.get() == 0, 2)
    assert (await proxy.post(ASK)).status == 200


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (VisaError("x"), {}),
        (RequestError("x"), {}),
        (PayloadTooLarge("x"), {}),
        (HeadersTooLarge("x"), {}),
        (RequestTimeout("x"), {"connection": "close"}),
        (RateLimited("x"), {"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "true"}),
        (RateLimited("x", wait_s=1.2), {"retry-after": "2", "retry-after-ms": "1200", "x-should-retry": "true"}),
        (NotReady("x"), {"retry-after": "1", "x-should-retry": "true"}),
        (Stopping("x"), {"retry-after": "1", "x-should-retry": "true"}),
        (UpstreamUnavailable("x"), {"retry-after": "1", "x-should-retry": "true"}),
        (UpstreamTimeout("x"), {"x-should-retry": "false"}),
        (DeadlineExceeded("x"), {"x-should-retry": "false"}),
        (RewriteRefused("x"), {"x-should-retry": "false"}),
        (UpstreamError("x", status=503, headers={"retry-after": "9"}), {"retry-after": "9"}),
        (UpstreamTimeout("x", headers={"x-should-retry": "true"}), {"x-should-retry": "true"}),
    ],
)
def test_every_error_says_whether_to_ask_again(error: VisaError, expected: dict[str, str]) -> None:
    assert error.headers == expected
    error.headers["x"] = "y"
    assert "x" not in type(error).default_headers


async def test_the_sdk_asks_again_when_a_slot_is_free(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(limits="{concurrent: 1}"))
    base.answer = never
    running = asyncio.create_task(proxy.post(ASK))
    await until(lambda: base.running == 1)
    asking = asyncio.create_task(proxy.client.with_options(max_retries=1).chat.completions.create(**ASK))
    await until(lambda: b'code="429"' in proxy.gateway.metrics.render())
    base.answer = None
    running.cancel()
    assert (await asking).choices[0].message.content


async def test_slots_come_back_after_errors(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(limits="{concurrent: 1, body_mb: 0.01}"), base_timeout_s=0.2)
    for answer in (answers(b"no json"), answers(b"", 500), never):
        base.answer = answer
        await proxy.post(ASK)
    for body in (b"{", b"[]", {**ASK, "n": 0}, {**ASK, "user": "x" * 20_000}, {**ASK, "model": "x@nobody"}):
        assert (await proxy.post(body)).status in (400, 404, 413)
    base.answer = None
    assert (await proxy.post(ASK)).status == 200


async def test_requests_a_minute(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(limits="{requests_per_minute: 3}"))
    replies = [await proxy.post(ASK) for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 21
    assert len(base.seen) == 3
    assert (await proxy.get("/healthz")).status == 200
    wrong = await proxy.post(ASK, {"Authorization": "Bearer sk-wrong"})
    assert wrong.status == 401, "a wrong key is no request of the tenant"
