"""A base that LiteLLM's SDK calls, behind the whole proxy, read with OpenAI's client: rewritten like any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.fakes.anthropic import messages
from tests.fakes.base import FakeBase, answers, never
from tests.fakes.http import HOST, closed_port, serving, until
from tests.fakes.needed import needs
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Running, config_for, running
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.said import ANSWER, QUESTION, TOOLS
from visa_proxy.llm.litellm import LiteLLMEndpoint
from visa_proxy.policy.config import LiteLLM
from visa_proxy.server.components import Instruments

pytestmark = [needs("litellm"), pytest.mark.asyncio(loop_scope="module")]

ASK: dict[str, Any] = {"model": "voice", "messages": [{"role": "user", "content": QUESTION}]}
PROFILES = ["bold", "off"]
TIMEOUT_S = 3.0


@dataclass
class Stack:
    """One proxy with three bases that LiteLLM calls: OpenAI's API, Anthropic's, and one that is down."""

    proxy: Running
    base: FakeBase
    anthropic: FakeBase

    def client(self, tenant: str = "openai", profile: str = "bold") -> openai.AsyncOpenAI:
        return self.proxy.client.with_options(api_key=f"sk-{tenant}", default_headers={"X-Visa-Profile": profile})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stack]:
    folder, base, anthropic, rewriter = tmp_path_factory.mktemp("policies"), FakeBase(), FakeBase(), FakeRewriter()
    for name in ("openai", "anthropic", "down"):
        shield = "{retries: 0, streaming: window}"
        extra = f"base: {name}" + ("\nfailover: openai" if name == "down" else "")
        write(folder, policy(tenant=name, key=f"sk-{name}", shield=shield, extra=extra), f"{name}.yaml")
    async with serving(base.app()) as url, serving(anthropic.app()) as anthropic_url, serving(rewriter.app()) as rewriter_url:
        base.url = f"{url}/v1"
        given: dict[str, Any] = {"model": "voice", "api_key": "sk-provider", "timeout_s": TIMEOUT_S}
        bases = {
            "openai": LiteLLM("openai/sample", api_base=base.url, **given),
            "anthropic": LiteLLM("anthropic/claude-3-haiku-20240307", api_base=anthropic_url, **given),
            "down": LiteLLM("openai/sample", api_base=f"http://{HOST}:{closed_port()}/v1", **given),
        }
        config = config_for("", f"{rewriter_url}/v1", folder, base_timeout_s=TIMEOUT_S, bases=bases)
        async with running(config, instruments) as proxy:
            for endpoint in proxy.gateway.bases.values():
                assert isinstance(endpoint, LiteLLMEndpoint)
                await endpoint.load()  # a request would wait too, but within its three seconds
            yield Stack(proxy, base, anthropic)


@pytest.fixture
def stack(shared: Stack) -> Stack:
    """With bases that answer as they should."""
    shared.base.answer, shared.base.says, shared.base.hold = None, None, None
    shared.anthropic.answer = messages()
    return shared


def status_of(answer: Any) -> str:
    return str(answer.visa["status"])


@pytest.mark.parametrize("tenant", ["openai", "anthropic"])
async def test_a_chat_is_rewritten_whole_and_streamed(stack: Stack, tenant: str) -> None:
    client = stack.client(tenant)
    whole = await client.chat.completions.create(**ASK)
    assert whole.model == "voice" and status_of(whole) == "adapted"
    assert whole.choices[0].message.content != ANSWER
    said, last = "", None
    async for chunk in await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}):
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
        last = chunk
    assert last is not None and last.usage is not None and last.usage.total_tokens == 33
    assert status_of(last) == "adapted" and said != ANSWER and "https://example.org/rice" in said


@pytest.mark.parametrize("tenant", ["openai", "anthropic"])
async def test_a_chat_passes_through_untouched(stack: Stack, tenant: str) -> None:
    client = stack.client(tenant, "off")
    assert (await client.chat.completions.create(**ASK)).choices[0].message.content == ANSWER
    stream = await client.chat.completions.create(**ASK, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER


async def test_rewritten_text_arrives_while_the_provider_still_writes(stack: Stack) -> None:
    stack.base.hold = asyncio.Event()
    first = ""
    async with asyncio.timeout(8):
        stream = await stack.client().chat.completions.create(**ASK, stream=True)
        async for chunk in stream:
            first += chunk.choices[0].delta.content or ""
            if first:
                break
    assert stack.base.running == 1, "the provider has sent half of its answer"
    stack.base.hold.set()
    rest = [chunk async for chunk in stream]
    assert status_of(rest[-1]) == "adapted" and len(rest) > 1


async def test_two_choices_and_tool_calls(stack: Stack) -> None:
    client = stack.client()
    whole = await client.chat.completions.create(**ASK, n=2)
    assert [choice["status"] for choice in whole.model_extra["visa"]["choices"]] == ["adapted"] * 2
    ends: dict[int, str] = {}
    async for chunk in await client.chat.completions.create(**ASK, n=2, stream=True):
        ends |= {choice.index: choice.finish_reason for choice in chunk.choices if choice.finish_reason}
    assert ends == {0: "stop", 1: "stop"}
    stack.base.says = [TOOLS]
    called = (await client.chat.completions.create(**ASK)).choices[0]
    assert [call.function.arguments for call in called.message.tool_calls] == [each.arguments for each in TOOLS.calls]
    assert called.finish_reason == "tool_calls"


@pytest.mark.parametrize("tenant", ["openai", "anthropic"])
async def test_completions_and_responses_are_rewritten_too(stack: Stack, tenant: str) -> None:
    client = stack.client(tenant)
    assert status_of(await client.completions.create(model="voice", prompt=QUESTION)) == "adapted"
    parts = [part async for part in await client.completions.create(model="voice", prompt=QUESTION, stream=True)]
    assert status_of(parts[-1]) == "adapted"
    whole = await client.responses.create(model="voice", input=QUESTION)
    assert status_of(whole) == "adapted" and whole.output_text != ANSWER
    async with client.responses.stream(model="voice", input=QUESTION) as stream:
        final = await stream.get_final_response()
    assert status_of(final) == "adapted" and final.output_text != ANSWER
    again = await client.responses.create(model="voice", input="And then?", previous_response_id=whole.id)
    assert status_of(again) == "adapted"


async def test_models_are_those_that_clients_may_ask_for(stack: Stack) -> None:
    names = [model.id async for model in stack.client().models.list()]
    assert "voice" in names and "voice@bold" in names and not any("sample" in name for name in names)
    assert (await stack.client("anthropic").chat.completions.create(**{**ASK, "model": "@bold"})).model == "voice"
    with pytest.raises(openai.NotFoundError) as caught:
        await stack.client().chat.completions.create(**{**ASK, "model": "sample"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        await stack.client().embeddings.create(model="voice", input="x")
    assert caught.value.code == "unknown_url"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_errors_of_the_provider_reach_the_client(
    stack: Stack, status: int, kind: type[openai.APIStatusError], profile: str, stream: bool
) -> None:
    told = {"message": "Not like this.", "type": "some_error", "param": "n", "code": "some_code"}
    stack.base.answer = answers({"error": told}, status, {"Retry-After": "7"})
    with pytest.raises(kind) as caught:
        await stack.client(profile=profile).chat.completions.create(**ASK, stream=stream)
    assert caught.value.response.json() == {"error": told}
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_provider_that_stalls_is_a_timeout(stack: Stack, profile: str) -> None:
    stack.base.answer = never
    with pytest.raises(openai.InternalServerError) as caught:
        await stack.client(profile=profile).chat.completions.create(**ASK)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    await until(lambda: stack.base.running == 0, 2, "the end of the request at the provider")


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_stream_that_breaks_off_ends_with_an_error(stack: Stack, profile: str) -> None:
    stack.anthropic.answer = messages(cut=5)
    stream = await stack.client("anthropic", profile).chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIError) as caught:
        _ = [chunk async for chunk in stream]
    assert caught.value.code == "upstream_garbled"


async def test_another_base_stands_in_for_one_that_cannot_be_reached(stack: Stack) -> None:
    got = await stack.client("down").chat.completions.with_raw_response.create(**ASK)
    assert got.headers["x-visa-base"] == "openai"


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_client_that_leaves_ends_the_call(stack: Stack, profile: str) -> None:
    stack.base.hold = asyncio.Event()
    stream = await stack.client(profile=profile).chat.completions.create(**ASK, stream=True)
    async for _ in stream:
        break
    assert stack.base.running == 1
    await stream.close()
    await until(lambda: stack.base.running == 0, 2, "the end of the request at the provider")


async def test_the_tenants_key_stays_here(stack: Stack) -> None:
    await stack.client().chat.completions.create(**ASK)
    seen = stack.base.seen[-1]
    assert seen.header("authorization") == "Bearer sk-provider"
    assert not any("sk-openai" in value or name.startswith("x-visa") for name, value in seen.headers)
    assert json.loads(seen.body)["model"] == "sample"
