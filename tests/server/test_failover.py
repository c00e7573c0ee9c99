"""A tenant with a second base."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, frames, never, streams
from tests.fakes.http import HOST, closed_port, sending, sends, until
from tests.fakes.policies import plain
from tests.fakes.proxy import Running, Starter
from visa_proxy.policy.config import Endpoint

ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
POLICY = plain(limits="{concurrent: 1}") + "failover: second\n"


async def started(start: Starter, first_url: str, second: FakeBase) -> Running:
    bases = {
        "default": Endpoint(first_url, api_key="sk-1", timeout_s=20),
        "second": Endpoint(second.url, model="other", timeout_s=20),
    }
    return await start(first_url, text=POLICY, bases=bases)


def failovers(proxy: Running) -> float:
    lines = proxy.gateway.metrics.render().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("visa_failovers_total"))


async def test_while_the_first_answers_the_second_is_not_asked(start: Starter, base: FakeBase, second: FakeBase) -> None:
    proxy = await started(start, base.url, second)
    assert (await proxy.post(ASK)).json["choices"][0]["message"]["content"] == ANSWER
    assert not second.seen and failovers(proxy) == 0


async def test_a_first_base_that_is_down(start: Starter, second: FakeBase) -> None:
    proxy = await started(start, f"http://{HOST}:{closed_port()}/v1", second)
    reply = await proxy.post(ASK)
    assert (reply.status, reply.json["choices"][0]["message"]["content"]) == (200, "From the second base.")
    (seen,) = second.seen
    assert json.loads(seen.body) == {**ASK, "model": "other"}, "it is asked for its own model, and nothing else is changed"
    assert seen.header("authorization") is None, "it got the key of the first base"
    assert failovers(proxy) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_first_base_that_says_it_cannot(
    start: Starter, base: FakeBase, second: FakeBase, status: int, stream: bool
) -> None:
    proxy = await started(start, base.url, second)
    base.answer = answers({"error": "busy"}, status)
    second.answer = streams(*frames(["From the second base."])) if stream else second.answer
    reply = await proxy.post({**ASK, "stream": stream})
    assert reply.status == 200 and b"second" in reply.body
    assert (len(base.seen), len(second.seen), failovers(proxy)) == (1, 1, 1)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_other_errors_are_the_answer(start: Starter, base: FakeBase, second: FakeBase, status: int) -> None:
    proxy = await started(start, base.url, second)
    base.answer = answers({"error": {"message": "No.", "type": "x", "param": None, "code": None}}, status, {"Retry-After": "7"})
    reply = await proxy.post(ASK)
    assert (reply.status, reply.json["error"]["message"], reply.headers["retry-after"]) == (status, "No.", "7")
    assert not second.seen and failovers(proxy) == 0


async def test_a_request_that_may_have_arrived_is_not_sent_again(start: Starter, second: FakeBase) -> None:
    async with sending(sends(b"")) as url:
        proxy = await started(start, url, second)
        reply = await proxy.post(ASK)
    assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_unavailable")
    assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("1", "true")
    assert not second.seen and failovers(proxy) == 0


async def test_both_are_down(start: Starter, second: FakeBase) -> None:
    second.url = f"http://{HOST}:{closed_port()}/v1"
    proxy = await started(start, f"http://{HOST}:{closed_port()}/v1", second)
    reply = await proxy.post(ASK)
    assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_unavailable")
    assert (await proxy.get("/healthz")).status == 200
    assert failovers(proxy) == 1


async def test_a_client_that_goes_takes_the_second_request_along(start: Starter, base: FakeBase, second: FakeBase) -> None:
    proxy = await started(start, base.url, second)
    base.answer, second.answer = answers({"error": "busy"}, 503), never
    asking = asyncio.create_task(proxy.post(ASK))
    await until(lambda: second.running == 1)
    asking.cancel()
    await until(lambda: second.gone == 1, 2, "the end of the request at the second base")
    await until(lambda: proxy.gateway.metrics.in_flight._value.get() == 0, 2)
    base.answer = None
    assert (await proxy.post(ASK)).status == 200, "the slot was not given back"
