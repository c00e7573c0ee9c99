"""Whatever the rewriter does: the client gets a verified rewrite or the base's own answer, byte for byte, and the reason."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.base import ANSWER, QUESTION, Answer, FakeBase, answers, never
from tests.fakes.http import serving, until
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Reply, Running, Starter, config_for, running
from tests.fakes.rewriter import FakeRewriter, reply, thrilled
from visa_proxy.policy.config import Endpoint, RewriterConfig
from visa_proxy.server.components import Instruments

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
Stack = tuple[Running, FakeBase, FakeRewriter]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stack]:
    """One proxy; tenants that differ in what happens when a rewrite fails."""
    folder, base, rewriter = tmp_path_factory.mktemp("policies"), FakeBase(), FakeRewriter()
    shields = {
        "original": "{retries: 0}",
        "error": "{retries: 0, on_failure: error}",
        "hasty": "{retries: 0, timeout_s: 0.4}",
        "bare": "{retries: 0, preserve: []}",
    }
    for name, shield in shields.items():
        write(folder, policy(tenant=name, key=f"sk-{name}", shield=shield), f"{name}.yaml")
    async with serving(base.app()) as url, serving(rewriter.app()) as rewriter_url:
        config = config_for(f"{url}/v1", f"{rewriter_url}/v1", folder, base_timeout_s=5)
        async with running(config, instruments) as proxy:
            yield proxy, base, rewriter


@pytest.fixture(autouse=True)
def obedient(stack: Stack) -> None:
    stack[2].answer, stack[2].rule, stack[1].texts = None, thrilled, [ANSWER]


async def ask(proxy: Running, tenant: str, *, stream: bool = False) -> Reply:
    return await proxy.post({**ASK, "stream": stream}, {"Authorization": f"Bearer sk-{tenant}"})


async def falls_back(proxy: Running, status: str, tenant: str = "original", answer: str = ANSWER) -> None:
    """Not streamed and streamed: HTTP 200, the base's own text, the status in header and `visa`."""
    whole = await ask(proxy, tenant)
    assert whole.status == 200
    assert whole.json["choices"][0]["message"]["content"] == answer
    assert (whole.headers["x-visa-status"], whole.json["visa"]["status"]) == (status, status)
    streamed = await ask(proxy, tenant, stream=True)
    chunks = [json.loads(part[6:]) for part in streamed.body.split(b"\n\n") if part.startswith(b"data: {")]
    assert "".join(choice["delta"].get("content", "") for each in chunks for choice in each["choices"]) == answer
    assert chunks[-1]["visa"]["status"] == status


FAULTS: list[tuple[str, Answer, str]] = [
    ("500", answers({"error": "oops"}, 500), "error"),
    ("400", answers({"error": {"message": "too long"}}, 400), "error"),
    ("404", answers({"error": {"message": "no such adapter"}}, 404), "unknown-model"),
    ("502", answers(b"", 502), "unavailable"),
    ("503", answers({"error": "busy"}, 503), "unavailable"),
    ("no-json", answers(b"oops"), "garbled"),
    ("list", answers(b"[]"), "garbled"),
    ("number", answers(b"5"), "garbled"),
    ("no-choices", answers({"choices": []}), "garbled"),
    ("no-message", answers({"choices": [{}]}), "garbled"),
    ("odd-message", answers({"choices": [{"message": "hi"}]}), "garbled"),
    ("odd-content", answers(reply([{"type": "text"}])), "garbled"),
    ("number-content", answers(reply(5)), "garbled"),
    ("odd-usage", answers({**reply("x"), "usage": {"prompt_tokens": "many"}}), "garbled"),
    ("null", answers(reply(None)), "empty"),
    ("empty", answers(reply("")), "empty"),
    ("blank", answers(reply(" \n")), "empty"),
    ("only-thoughts", answers(reply("<think>Hm.</think>\n")), "empty"),
    ("endless", answers(reply("and on and on", finish="length")), "endless"),
    ("huge", answers(reply("x" * 1_100_000)), "endless"),
]


@pytest.mark.parametrize(("answer", "why"), [pytest.param(*rest, id=name) for name, *rest in FAULTS])
async def test_no_rewrite(stack: Stack, answer: Answer, why: str) -> None:
    stack[2].answer = answer
    await falls_back(stack[0], f"fallback:rewriter-{why}")


DROPPED = " If the rice is still hard, add a little more water."
UNVERIFIED: list[tuple[str, Callable[[str], str], str]] = [
    ("drops-a-sentence", lambda text: thrilled(text.replace(DROPPED, "")), "facts"),
    ("drops-a-step", lambda text: thrilled(text.replace(" Bring a pot of water to a boil and add the rice.", "")), "facts"),
    ("adds-a-claim", lambda text: f"{thrilled(text)} The old king of the village owns three houses.", "facts"),
    ("adds-a-number", lambda text: f"{thrilled(text)} This is fun for 99 people.", "facts"),
    ("negates", lambda text: thrilled(text.replace("add the rice", "do not add the rice")), "facts"),
    ("changes-a-number", lambda text: thrilled(text.replace("⟦1⟧", "20")), "placeholders"),
    ("loses-a-link", lambda text: thrilled(text.replace("⟦2⟧", "our site")), "placeholders"),
    ("swaps", lambda text: thrilled(text.replace("⟦1⟧", "@").replace("⟦2⟧", "⟦1⟧").replace("@", "⟦2⟧")), "placeholders"),
    ("doubles", lambda text: thrilled(text) + " ⟦1⟧", "placeholders"),
    ("invents", lambda text: thrilled(text) + " ⟦9⟧", "placeholders"),
    ("unchanged", lambda text: text, "unchanged"),
    ("only-white-space", lambda text: text.replace(". ", ".\n\n"), "unchanged"),
    ("other-way", lambda text: f"Stay safe and avoid every risk: {text} Never seek any thrill or pleasure.", "values"),
    ("other-topic", lambda _: "⟦1⟧ ⟦2⟧ Skiing is an exciting adventure.", "facts"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "why"), [pytest.param(*rest, id=name) for name, *rest in UNVERIFIED])
async def test_an_unverified_rewrite_never_leaves(stack: Stack, rule: Callable[[str], str], why: str) -> None:
    stack[2].rule = rule
    await falls_back(stack[0], f"fallback:unverified-{why}")


async def test_numbers_are_checked_even_where_they_are_not_preserved(stack: Stack) -> None:
    stack[2].rule = lambda text: thrilled(text.replace("15 minutes", "20 minutes"))
    await falls_back(stack[0], "fallback:unverified-facts", "bare")


async def test_odd_answers_come_back_byte_for_byte(stack: Stack) -> None:
    odd = "\n  Rinse\u2028it\u0085well ⟦1⟧ ⟦ 🎈\t\r\nשלום.  Then wait 5 minutes.\x00 \n\n"
    stack[1].texts = [odd]
    stack[2].rule = lambda _: "Gone."
    await falls_back(stack[0], "fallback:unverified-placeholders", answer=odd)


async def test_slow(stack: Stack) -> None:
    stack[2].answer = never
    await falls_back(stack[0], "fallback:rewriter-timeout", "hasty")
    await until(lambda: stack[2].gone >= 2, 2, "the end of the requests at the rewriter")


@pytest.mark.asyncio(loop_scope="function")
async def test_down(start: Starter, base: FakeBase, instruments: Instruments) -> None:
    await falls_back(
        await start(base.url, None, instruments=instruments, text=policy(key="sk-original")), "fallback:rewriter-unavailable"
    )


@pytest.mark.asyncio(loop_scope="function")
async def test_slower_than_its_own_deadline(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    rewriter.answer = never
    config = RewriterConfig(Endpoint(rewriter.url, model="fake", timeout_s=0.3))
    proxy = await start(base.url, instruments=instruments, rewriter=config, text=policy(key="sk-original"))
    await falls_back(proxy, "fallback:rewriter-timeout")


@pytest.mark.parametrize(
    ("answer", "rule"),
    [(answers(b"", 500), thrilled), (answers(reply("")), thrilled), (None, lambda text: text)],
    ids=["failed", "empty", "unverified"],
)
async def test_on_failure_error(stack: Stack, answer: Answer | None, rule: Callable[[str], str]) -> None:
    stack[2].answer, stack[2].rule = answer, rule
    refused = await ask(stack[0], "error")
    assert refused.status == 502
    error = refused.json["error"]
    assert (error["code"], error["type"]) == ("rewrite_unverified", "rewrite_error")
    assert ANSWER not in refused.body.decode()
    client = stack[0].client.with_options(api_key="sk-error")
    with pytest.raises(openai.APIError) as caught:
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass
    assert caught.value.code == "rewrite_unverified"


async def test_on_failure_error_leaves_good_rewrites_alone(stack: Stack) -> None:
    assert (await ask(stack[0], "error")).json["visa"]["status"] == "adapted"
    stack[1].texts = [""]
    assert (await ask(stack[0], "error")).headers["x-visa-status"] == "skipped:empty"
