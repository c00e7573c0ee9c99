"""A real LiteLLM proxy with our guardrail, over HTTP and inside it, and the official client in front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.fakes import litellm
from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.child import Child
from tests.fakes.http import serving
from tests.fakes.policies import KEY, policy, write
from tests.fakes.proxy import Running, config_for, running
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.said import ANSWER, CALLS, CALLS_ONLY, JSON, LONG_ANSWER, TOOLS
from visa_proxy.server.components import Instruments

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

SAID = " Make it an exciting adventure."
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
HTTP, INSIDE = "over-http", "inside"
KINDS = (HTTP, INSIDE)

CONFIG = """
model_list:
  - model_name: sample
    litellm_params: {{model: openai/sample, api_base: "{base}", api_key: sk-of-the-base}}
guardrails:
  - guardrail_name: over-http
    litellm_params:
      guardrail: generic_guardrail_api
      mode: [pre_call, post_call]
      api_base: "{visa}"
      api_key: {key}
      extra_headers: [x-visa-profile, x-visa-instruction]
      streaming_transform_mode: incremental_diff
  - guardrail_name: over-http-full
    litellm_params:
      guardrail: generic_guardrail_api
      mode: post_call
      api_base: "{visa}"
      api_key: sk-full
      streaming_transform_mode: incremental_diff
      streaming_end_of_stream_only: true
  - guardrail_name: inside
    litellm_params: {{guardrail: visa_proxy.plugins.litellm.VisaGuardrail, mode: post_call, tenant: acme}}
  - guardrail_name: inside-full
    litellm_params: {{guardrail: visa_proxy.plugins.litellm.VisaGuardrail, mode: post_call, tenant: full, profile: aim}}
  - guardrail_name: over-http-strict
    litellm_params:
      guardrail: generic_guardrail_api
      mode: post_call
      api_base: "{visa}"
      api_key: sk-strict
      streaming_transform_mode: incremental_diff
      streaming_end_of_stream_only: true
      unreachable_fallback: fail_open
  - guardrail_name: inside-strict
    litellm_params: {{guardrail: visa_proxy.plugins.litellm.VisaGuardrail, mode: post_call, tenant: strict}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
"""
VISA = """
policies: ./policies
bases: {{default: {{url: "{base}"}}}}
rewriter: {{url: "{rewriter}", model: fake}}
"""


@dataclass
class Stack:
    """All that runs."""

    base: FakeBase
    rewriter: FakeRewriter
    visa: Running
    litellm: Child
    client: AsyncOpenAI
    policies: Path

    async def ask(self, kind: str, **request: Any) -> Any:
        """With the headers of the answer."""
        given = {"model": "sample", "messages": MESSAGES, "extra_body": {"guardrails": [kind]}, **request}
        return await self.client.chat.completions.with_raw_response.create(**given)

    async def text(self, kind: str, **request: Any) -> str:
        return str((await self.ask(kind, **request)).parse().choices[0].message.content)

    async def stream(self, kind: str, **request: Any) -> Streamed:
        """Fails when LiteLLM reports an error on the stream, as `stream_transform_underflow` is."""
        streamed, begun = Streamed(), time.monotonic()
        reply = await self.ask(kind, stream=True, **request)
        streamed.headers = reply.headers
        async for chunk in reply.parse():
            streamed.chunks.append(chunk)
            for choice in chunk.choices:
                if choice.delta.content:
                    streamed.early += not streamed.texts and self.base.running > 0
                    streamed.texts[choice.index] = streamed.texts.get(choice.index, "") + choice.delta.content
                streamed.finish[choice.index] = choice.finish_reason or streamed.finish.get(choice.index)
        streamed.seconds = time.monotonic() - begun
        return streamed


@dataclass
class Streamed:
    """What a client read of a stream."""

    headers: Any = None
    chunks: list[Any] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    finish: dict[int, Any] = field(default_factory=dict)
    early: int = 0
    """1 when text came while the base was still speaking."""
    seconds: float = 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("litellm")
    policies = folder / "policies"
    policies.mkdir()
    write(policies, policy(shield="{streaming: window, retries: 0}"))
    write(policies, policy(tenant="full", key="sk-full"), "full.yaml")
    write(policies, policy(tenant="strict", key="sk-strict", shield="{on_failure: error, retries: 0}"), "strict.yaml")
    base, rewriter = FakeBase(), FakeRewriter()
    async with serving(base.app()) as base_url, serving(rewriter.app()) as rewriter_url:
        base.url, rewriter.url = f"{base_url}/v1", f"{rewriter_url}/v1"
        (folder / "visa.yaml").write_text(VISA.format(base=base.url, rewriter=rewriter.url))
        async with running(config_for(base.url, rewriter.url, policies, base_timeout_s=20.0), instruments) as visa:
            config = CONFIG.format(base=base.url, visa=visa.url, key=KEY)
            async with (
                litellm.litellm_proxy(folder, config, {"VISA_CONFIG": str(folder / "visa.yaml")}) as child,
                AsyncOpenAI(api_key=litellm.KEY, base_url=f"{child.url}/v1", max_retries=0, timeout=120) as client,
            ):
                yield Stack(base, rewriter, visa, child, client, policies)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(started: Stack) -> Stack:
    """With a base and a rewriter as they were at the beginning."""
    base, rewriter = started.base, started.rewriter
    base.texts, base.says, base.pause_s, base.answer = [ANSWER], None, 0.0, None
    rewriter.rule, rewriter.answer = (lambda text: f"{text}{SAID}"), None
    return started


@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_comes_rewritten(stack: Stack, kind: str) -> None:
    text = await stack.text(kind)
    assert SAID in text and text.replace(SAID, "") == ANSWER


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_comes_rewritten_window_by_window_while_the_base_still_speaks(stack: Stack, kind: str) -> None:
    stack.base.texts, stack.base.pause_s = [LONG_ANSWER], 0.03
    own = await stack.visa.client.chat.completions.create(model="sample", messages=MESSAGES, stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in own if chunk.choices])
    streamed = await stack.stream(kind, stream_options={"include_usage": True})
    assert said.count(SAID) > 3 and streamed.texts == {0: said}
    assert streamed.early and len([each for each in streamed.chunks if each.choices]) > 4
    assert streamed.finish == {0: "stop"} and streamed.chunks[-1].usage.total_tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fast_stream_loses_nothing(stack: Stack, kind: str) -> None:
    stack.base.texts = [LONG_ANSWER]
    streamed = await stack.stream(kind)
    assert streamed.texts[0].replace(SAID, "") == LONG_ANSWER and streamed.texts[0].count(SAID) > 3


@pytest.mark.parametrize("kind", KINDS)
async def test_every_choice_of_several_is_rewritten(stack: Stack, kind: str) -> None:
    stack.base.texts, stack.base.pause_s = [ANSWER, LONG_ANSWER], 0.005
    whole = (await stack.ask(kind, n=2)).parse()
    assert [choice.message.content.replace(SAID, "") for choice in whole.choices] == [ANSWER, LONG_ANSWER]
    assert all(SAID in choice.message.content for choice in whole.choices)
    streamed = await stack.stream(kind, n=2)
    assert {index: text.replace(SAID, "") for index, text in streamed.texts.items()} == {0: ANSWER, 1: LONG_ANSWER}
    assert all(SAID in text for text in streamed.texts.values())


@pytest.mark.parametrize("kind", ["over-http-full", "inside-full"])
async def test_with_streaming_full_the_text_comes_at_once_at_the_end(stack: Stack, kind: str) -> None:
    stack.base.pause_s = 0.005
    streamed = await stack.stream(kind)
    assert streamed.texts == {0: ANSWER + SAID} and not streamed.early
    assert len([each for each in streamed.chunks if each.choices and each.choices[0].delta.content]) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_tool_calls_stay_as_they_are(stack: Stack, kind: str) -> None:
    for says in (TOOLS, CALLS_ONLY):
        stack.base.says = [says]
        message = (await stack.ask(kind)).parse().choices[0].message
        assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [
            (call.name, call.arguments) for call in CALLS
        ]
        assert message.content == (None if says.text is None else says.text + SAID)
        streamed = await stack.stream(kind)
        arguments: dict[int, str] = {}
        for call in [call for each in streamed.chunks for choice in each.choices for call in choice.delta.tool_calls or ()]:
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
        assert list(arguments.values()) == [call.arguments for call in CALLS]
        assert streamed.texts == ({} if says.text is None else {0: says.text + SAID})
        assert streamed.finish == {0: "tool_calls"}


async def down(*_: Any) -> Any:
    """A rewriter that fails."""
    raise ConnectionResetError


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_rewriter_the_answer_is_the_models_own(stack: Stack, kind: str) -> None:
    stack.rewriter.answer = down
    assert await stack.text(kind) == ANSWER
    assert (await stack.stream(kind)).texts == {0: ANSWER}


@pytest.mark.parametrize("kind", ["over-http-strict", "inside-strict"])
async def test_without_a_rewriter_a_policy_may_want_an_error(stack: Stack, kind: str) -> None:
    assert await stack.text(kind) == ANSWER + SAID
    stack.rewriter.answer = down
    with pytest.raises(openai.APIStatusError, match="rewr"):
        await stack.ask(kind)
    with pytest.raises(openai.APIError):
        await stack.stream(kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_json_is_left_alone(stack: Stack, kind: str) -> None:
    stack.base.says = [JSON]
    assert await stack.text(kind) == JSON.text
    assert (await stack.stream(kind)).texts == {0: JSON.text}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_chooses_its_profile_by_header_within_the_policy(stack: Stack, kind: str) -> None:
    off = {"X-Visa-Profile": "off"}
    assert await stack.text(kind, extra_headers=off) == ANSWER
    assert (await stack.stream(kind, extra_headers=off)).texts == {0: ANSWER}
    with pytest.raises(openai.APIStatusError, match="Profile 'secret' may not be chosen per request; allowed: ") as refused:
        await stack.ask(kind, extra_headers={"X-Visa-Profile": "secret"})
    assert refused.value.status_code in (400, 403)


@pytest.mark.parametrize("kind", KINDS)
async def test_on_the_responses_api_whole_answers_are_rewritten_and_streams_are_not(stack: Stack, kind: str) -> None:
    asked: Any = {"model": "sample", "input": QUESTION, "extra_body": {"guardrails": [kind]}}
    whole = await stack.client.responses.create(**asked)
    assert SAID in whole.output_text and whole.output_text.replace(SAID, "") == ANSWER
    events = await stack.client.responses.create(stream=True, **asked)
    assert "".join([event.delta async for event in events if event.type == "response.output_text.delta"]) == ANSWER


async def test_the_question_reaches_the_rewriter(stack: Stack) -> None:
    for kind in KINDS:
        stack.rewriter.asked.clear()
        await stack.text(kind)
        assert all(QUESTION in asked["messages"][-1]["content"] for asked in stack.rewriter.asked), kind


async def test_headers_say_what_became_of_it_where_the_guardrail_runs_inside(stack: Stack) -> None:
    headers = (await stack.ask(INSIDE)).headers
    assert (headers["x-visa-tenant"], headers["x-visa-profile"], headers["x-visa-status"]) == ("acme", "bold", "adapted")
    streamed = (await stack.stream(INSIDE)).headers
    assert streamed["x-visa-profile"] == "bold" and streamed["x-visa-stream-mode"] == "window"
    assert (await stack.ask("inside-full")).headers["x-visa-profile"] == "aim"
    assert "x-visa-profile" not in (await stack.ask(HTTP)).headers


async def test_an_edited_policy_is_in_force_inside_litellm(stack: Stack) -> None:
    shield = "{streaming: window, retries: 0}"
    try:
        write(stack.policies, policy(default="off", shield=shield))
        await asyncio.sleep(1.5)
        assert await stack.text(INSIDE) == ANSWER
    finally:
        write(stack.policies, policy(shield=shield))
    await asyncio.sleep(1.5)
    assert SAID in await stack.text(INSIDE)
