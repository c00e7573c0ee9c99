"""What /metrics counts of real requests, and the header that says who answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.base import ANSWER, QUESTION, FakeBase
from tests.fakes.http import HOST, closed_port, until
from tests.fakes.policies import plain, policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.said import LONG_ANSWER
from visa_proxy.policy.config import Endpoint
from visa_proxy.server.components import Instruments
from visa_proxy.server.engine import EngineState
from visa_proxy.server.metrics import Metrics

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


async def counted(proxy: Running, name: str) -> dict[str, float]:
    """The samples of a metric by their labels, as a scraper reads them."""
    lines = (await proxy.get("/metrics")).body.decode().splitlines()
    found = [line.removeprefix(name).rpartition(" ") for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    return {labels: float(value) for labels, _, value in found}


@pytest.mark.parametrize("down", [False, True])
async def test_another_base_is_named_and_counted(start: Starter, base: FakeBase, second: FakeBase, down: bool) -> None:
    url = f"http://{HOST}:{closed_port()}/v1" if down else base.url
    bases = {"default": Endpoint(url, timeout_s=20), "second": Endpoint(second.url, timeout_s=20)}
    proxy = await start(url, text=plain() + "failover: second\n", bases=bases)
    for _ in range(2):
        reply = await proxy.post(ASK)
        assert reply.status == 200
        assert reply.headers.get("x-visa-base") == ("second" if down else None)
        assert reply.json["choices"][0]["message"]["content"] == ("From the second base." if down else ANSWER)
    assert await counted(proxy, "visa_failovers_total") == ({'{tenant="plain"}': 2.0} if down else {})


async def test_windows_are_counted_by_what_became_of_them(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))
    base.texts = [LONG_ANSWER]
    rewriter.rule = lambda text: "Pay 900 dollars to a stranger." if "Fluff" in text else f"{text} Make it an exciting adventure."
    stream = await proxy.client.chat.completions.create(**ASK, stream=True)
    visa = [(chunk.model_extra or {}).get("visa") async for chunk in stream][-1]
    assert visa is not None
    expected: dict[str, float] = {}
    for status, count in visa["windows"].items():
        if status != "total":
            labels = f'{{status="{status.partition(":")[0]}",tenant="acme"}}'
            expected[labels] = expected.get(labels, 0) + count
    assert len(expected) >= 2
    assert await counted(proxy, "visa_windows_total") == expected
    assert await counted(proxy, "visa_answers_total") == {'{profile="bold",status="adapted",tenant="acme"}': 1.0}


async def test_the_time_to_the_first_text_is_measured_once_a_stream(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))
    name = "visa_time_to_first_token_seconds"
    assert (await proxy.post(ASK)).status == 200
    assert await counted(proxy, f"{name}_count") == {"": 0.0}, "there is none without a stream"
    base.texts = [LONG_ANSWER]
    base.hold = asyncio.Event()
    asking = asyncio.create_task(proxy.post({**ASK, "stream": True}))
    metrics = proxy.gateway.metrics
    await until(lambda: f"{name}_count 1.0" in metrics.render().decode(), 10, "the first text")
    assert not asking.done(), "it was measured at the end"
    base.hold.set()
    assert (await asking).status == 200
    assert await counted(proxy, f"{name}_count") == {"": 1.0}
    assert 0 < (await counted(proxy, f"{name}_sum"))[""] < 10


@pytest.mark.parametrize("several", [False, True])
def test_restarts_of_the_rewriter_never_fall_and_are_no_sum_over_workers(several: bool) -> None:
    metrics = Metrics(CollectorRegistry if several else None)
    read: list[float] = []
    # One is started three times, then another has taken its place; between them there is none.
    for restarts in (0, 3, 3, None, 0, 2):
        metrics.rewriter(EngineState(launched=restarts is not None, ready=False, restarts=restarts or 0))
        (family,) = [f for f in text_string_to_metric_families(metrics.render().decode()) if f.name == "visa_rewriter_restarts"]
        assert family.type == "counter"
        read += [sample.value for sample in family.samples if sample.name == "visa_rewriter_restarts_total"]
    assert read == [0, 3, 3, 3, 3, 5]
