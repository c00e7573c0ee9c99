"""LiteLLM's generic guardrail API: what is returned may be the end of a stream at any time, and always goes on from what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.policies import KEY, policy
from tests.fakes.proxy import Reply, Running, Starter
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import ANSWER, LONG_ANSWER
from visa_proxy.server.components import Instruments
from visa_proxy.server.drafts import Drafts

PATH = "/beta/litellm_basic_guardrail_api"
SAID = " Make it an exciting adventure."
RATE = 30
"""Characters between two calls about a stream."""


class Stream:
    """One stream as LiteLLM passes it on with `incremental_diff`: tells all so far, sends what is new and not to be held back."""

    def __init__(self, proxy: Running, call: str = "call-1", **body: Any) -> None:
        self._proxy = proxy
        self._body = {"input_type": "response", "litellm_call_id": call, "request_data": {}, **body}
        self.sent: list[str] = []
        self.early = 0
        """Characters sent before the last call."""

    async def tell(self, *texts: str, final: bool = False) -> Any:
        """One call about the texts so far."""
        reply = await self._proxy.post({**self._body, "texts": list(texts)}, path=PATH)
        assert reply.status == 200, reply.body
        said = reply.json.get("texts", list(texts))
        held = reply.json.get("stream_holdback_chars", [0] * len(texts))
        assert len(said) == len(held) == len(texts)
        self.sent += [""] * (len(texts) - len(self.sent))
        self.early = self.early if final else sum(map(len, self.sent))
        for i, text in enumerate(said):
            assert text.startswith(self.sent[i]), f"stream_transform_underflow: {text!r} after {self.sent[i]!r}"
            self.sent[i] = text if final else text[: max(len(self.sent[i]), len(text) - held[i])]
        return reply.json

    async def run(self, *texts: str, begun: int = 0, rate: int = RATE, pause_s: float = 0.0) -> list[str]:
        """All of a stream of which `begun` characters were told."""
        for end in range(begun + rate, max(map(len, texts)), rate):
            await self.tell(*[text[:end] for text in texts])
            await asyncio.sleep(pause_s)
        await self.tell(*texts, final=True)
        return self.sent


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    rewriter.rule = lambda text: f"{text}{SAID}"
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))


async def ask(proxy: Running, texts: Sequence[str] = (ANSWER,), headers: dict[str, str] | None = None, **body: Any) -> Reply:
    asked = {"input_type": "response", "texts": list(texts), "litellm_call_id": "call-1", "request_data": {}, **body}
    return await proxy.post(asked, headers, path=PATH)


async def test_an_answer_comes_back_rewritten_and_a_question_as_it_is(proxy: Running) -> None:
    assert (await ask(proxy, input_type="request", texts=[QUESTION])).json == {"action": "NONE"}
    reply = await ask(proxy)
    assert reply.json["action"] == "GUARDRAIL_INTERVENED"
    (text,) = reply.json["texts"]
    assert text.count(SAID) > 1 and text.replace(SAID, "") == ANSWER
    assert reply.headers["X-Visa-Status"] == "adapted" and reply.headers["X-Visa-Profile"] == "bold"


async def test_the_key_may_come_in_either_header_and_must_be_right(proxy: Running) -> None:
    body = {"input_type": "response", "texts": [ANSWER], "request_data": {}}
    for headers, status in (({"x-api-key": KEY}, 200), ({"Authorization": f"Bearer {KEY}"}, 200), ({"x-api-key": "sk-no"}, 401)):
        async with proxy.http.post(proxy.url + PATH, json=body, headers={"Authorization": "", **headers}) as got:
            assert got.status == status
    async with proxy.http.get(proxy.url + PATH) as got:
        assert got.status == 405
    assert 'endpoint="/beta/litellm_basic_guardrail_api"' in (await proxy.get("/metrics")).body.decode()


async def test_a_stream_goes_on_from_what_was_sent_and_leaves_in_windows(proxy: Running) -> None:
    stream = Stream(proxy)
    (text,) = await stream.run(LONG_ANSWER, pause_s=0.05)
    assert text.count(SAID) > 3 and text.replace(SAID, "") == LONG_ANSWER
    assert stream.early > len(LONG_ANSWER) // 2


async def test_a_stream_says_what_the_proxy_itself_would_stream(proxy: Running, base: FakeBase) -> None:
    base.texts = [LONG_ANSWER]
    messages: Any = [{"role": "user", "content": QUESTION}]
    said = await proxy.client.chat.completions.create(model="sample", messages=messages, stream=True)
    own = "".join([chunk.choices[0].delta.content or "" for chunk in [each async for each in said] if chunk.choices])
    assert await Stream(proxy).run(LONG_ANSWER) == [own]


async def test_windows_leave_before_the_end_even_when_the_base_is_faster_than_the_rewriter(
    proxy: Running, rewriter: FakeRewriter
) -> None:
    stream = Stream(proxy)
    await stream.run("\n\n".join([ANSWER] * 4))
    assert stream.early > len(ANSWER)


async def test_choices_are_told_apart_when_they_begin_one_after_the_other(proxy: Running) -> None:
    stream, other = Stream(proxy), LONG_ANSWER
    await stream.tell(other[:200])
    stream.sent.insert(0, "")  # the first choice begins after the second
    sent = await stream.run(ANSWER, other, begun=200)
    assert [text.replace(SAID, "") for text in sent] == [ANSWER, other]


async def test_an_end_that_looks_like_no_end_leaves_as_the_base_said_it(proxy: Running) -> None:
    cut = ANSWER[: ANSWER.index("as shown")]
    (text,) = await Stream(proxy).run(cut, pause_s=0.2)
    assert text.startswith(ANSWER[:40]) and text.endswith("15 minutes, ") and SAID in text


async def test_after_a_restart_a_stream_goes_on_where_it_was(proxy: Running) -> None:
    stream = Stream(proxy)
    await stream.tell(LONG_ANSWER[:300])
    await asyncio.sleep(0.5)
    await stream.tell(LONG_ANSWER[:400])
    assert SAID in stream.sent[0]
    proxy.gateway.drafts = Drafts(lambda plan, trace: None)
    (text,) = await stream.run(LONG_ANSWER, begun=400)
    assert text.replace(SAID, "") == LONG_ANSWER


async def test_with_streaming_full_nothing_is_sent_before_the_end(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments)
    stream = Stream(proxy)
    assert await stream.run(ANSWER) == [thrilled(ANSWER)]
    assert stream.early == 0
    assert (await ask(proxy, litellm_call_id=None)).json["texts"] == [thrilled(ANSWER)]


async def test_the_caller_chooses_within_the_policy_by_header(proxy: Running, rewriter: FakeRewriter) -> None:
    off = await ask(proxy, request_headers={"X-Visa-Profile": "off"})
    assert off.json == {"action": "NONE"} and off.headers["X-Visa-Status"] == "passthrough"
    configured = await ask(proxy, additional_provider_specific_params={"profile": "off"})
    assert configured.json == {"action": "NONE"}
    told = await ask(proxy, request_headers={"x-visa-instruction": "[present]"})
    assert told.json["action"] == "GUARDRAIL_INTERVENED"
    for kind in ("request", "response"):
        refused = await ask(proxy, input_type=kind, request_headers={"x-visa-profile": "secret"})
        assert refused.json["action"] == "BLOCKED"
        assert refused.json["blocked_reason"].startswith("Profile 'secret' may not be chosen per request; allowed: ")


async def test_the_question_that_came_before_is_what_the_answer_answers(proxy: Running, rewriter: FakeRewriter) -> None:
    question = {"role": "user", "content": QUESTION}
    await ask(proxy, input_type="request", texts=[QUESTION], structured_messages=[question])
    await ask(proxy)
    assert all(QUESTION in asked["messages"][-1]["content"] for asked in rewriter.asked)
    await ask(proxy, litellm_call_id="call-2")
    assert QUESTION not in rewriter.asked[-1]["messages"][-1]["content"]


async def test_a_rewriter_that_is_down_leaves_the_answer_as_it_was(
    start: Starter, base: FakeBase, instruments: Instruments
) -> None:
    proxy = await start(base.url, None, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))
    reply = await ask(proxy)
    assert reply.json["action"] == "NONE" and reply.headers["X-Visa-Status"] == "fallback:rewriter-unavailable"
    assert await Stream(proxy, "call-2").run(LONG_ANSWER) == [LONG_ANSWER]


async def test_where_the_policy_wants_an_error_the_answer_is_blocked(
    start: Starter, base: FakeBase, instruments: Instruments
) -> None:
    proxy = await start(base.url, None, instruments=instruments, text=policy(shield="{on_failure: error, retries: 0}"))
    reply = (await ask(proxy)).json
    assert reply["action"] == "BLOCKED" and "texts" not in reply and reply["blocked_reason"]


async def test_calls_without_an_id_know_nothing_of_each_other(proxy: Running, rewriter: FakeRewriter) -> None:
    question = [{"role": "user", "content": "What is in the vault of the other caller?"}]
    for missing in ({"litellm_call_id": None}, {"litellm_call_id": ""}):
        await ask(proxy, input_type="request", texts=[QUESTION], structured_messages=question, **missing)
        # The request id is the client's to choose: it stands for no call.
        first = await ask(proxy, texts=[ANSWER[:60]], headers={"X-Request-Id": "same"}, **missing)
        assert first.status == 200
        (text,) = (await ask(proxy, headers={"X-Request-Id": "same"}, **missing)).json["texts"]
        assert text.replace(SAID, "") == ANSWER
    assert not [asked for asked in rewriter.asked if "vault" in str(asked)]
    drafts = proxy.gateway.drafts
    assert drafts.query("acme", "") == "" and len(drafts._calls["acme"]) == 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_type": "both"}, "input_type"),
        ({"texts": ["a", 1]}, "texts"),
        ({"texts": "a"}, "texts"),
        ({"request_headers": {"a": 1}}, "request_headers"),
        ({"litellm_call_id": 7}, "litellm_call_id"),
        ({"litellm_call_id": "7" * 257}, "litellm_call_id"),
        ({"texts": ["a. "] * 129}, "texts"),
        ({"additional_provider_specific_params": {"profile": 7}}, "profile"),
    ],
)
async def test_what_is_wrong_with_a_body_is_named(proxy: Running, body: dict[str, Any], param: str) -> None:
    reply = await proxy.post({"input_type": "response", "texts": [ANSWER], **body}, path=PATH)
    assert reply.status == 400 and reply.json["error"]["param"] == param


async def test_a_huge_text_keeps_nobody_waiting(proxy: Running) -> None:
    text = "*_`[(|" * 300_000
    asking = asyncio.create_task(proxy.post({"input_type": "response", "texts": [text]}, path=PATH))
    waits = []
    for _ in range(20):
        started = asyncio.get_running_loop().time()
        assert (await proxy.get("/healthz")).status == 200
        waits.append(asyncio.get_running_loop().time() - started)
    asking.cancel()
    assert max(waits) < 1.0
