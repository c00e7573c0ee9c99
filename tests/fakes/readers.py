"""Clients that people use, each putting an answer together in its own way: openai-python, LangChain and LiteLLM."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from tests.fakes.said import QUESTION, Json

FUNCTIONS: list[Json] = [
    {
        "name": name,
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        "strict": True,
    }
    for name in ("get_weather", "get_time")
]
SCHEMA: Json = {"name": "recipe", "strict": True, "schema": {"type": "object", "additionalProperties": True}}


@dataclass(frozen=True)
class Ask:
    """A question, in the words of no surface."""

    n: int = 1
    json: bool = False
    """Whether a JSON schema is asked for."""
    tools: bool = False

    def chat(self) -> Json:
        body: Json = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}], **self.sampling()}
        if self.tools:
            body["tools"] = [{"type": "function", "function": each} for each in FUNCTIONS]
        if self.json:
            body["response_format"] = {"type": "json_schema", "json_schema": SCHEMA}
        return body

    def completions(self) -> Json:
        return {"model": "sample", "prompt": QUESTION, **self.sampling()}

    def responses(self) -> Json:
        body: Json = {"model": "sample", "input": QUESTION}
        if self.tools:
            body["tools"] = [{"type": "function", **each} for each in FUNCTIONS]
        if self.json:
            body["text"] = {"format": {"type": "json_schema", **SCHEMA}}
        return body

    def sampling(self) -> Json:
        return {"n": self.n} if self.n > 1 else {}


@dataclass(frozen=True)
class Read:
    """What a reader makes of an answer."""

    texts: list[str]
    """By choice; "" for a choice without text."""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, name and arguments of every tool call. Readers that hand the arguments over parsed: dumped again."""
    visa: Json | None = None
    """None where the reader does not show it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the answer; empty where the reader does not show them."""

    @property
    def status(self) -> str | None:
        return self.visa["status"] if self.visa else self.headers.get("x-visa-status")


@dataclass(frozen=True)
class Place:
    """Where to ask."""

    url: str
    """With /v1."""
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)

    async def openai(self, read: Callable[[AsyncOpenAI], Awaitable[Read]]) -> Read:
        """What `read` reads, with the headers of the answer."""
        seen: dict[str, str] = {}

        async def note(response: Any) -> None:
            seen.update(response.headers)

        http = DefaultAsyncHttpxClient(event_hooks={"response": [note]})
        async with AsyncOpenAI(
            api_key=self.key, base_url=self.url, max_retries=0, timeout=20, http_client=http, default_headers=self.headers
        ) as client:
            got = await read(client)
        return Read(got.texts, got.calls, got.visa, seen)


Reader = Callable[[Place, Ask], Awaitable[Read]]


async def chat_whole(place: Place, ask: Ask) -> Read:
    async def read(client: AsyncOpenAI) -> Read:
        return _chat(await client.chat.completions.create(**ask.chat()))

    return await place.openai(read)


async def chat_accumulated(place: Place, ask: Ask) -> Read:
    """openai-python's own accumulator."""

    async def read(client: AsyncOpenAI) -> Read:
        visa = None
        async with client.chat.completions.stream(**ask.chat()) as stream:
            async for event in stream:
                if event.type == "chunk":
                    visa = (event.chunk.model_extra or {}).get("visa")
            got = _chat(await stream.get_final_completion())
        return Read(got.texts, got.calls, visa)

    return await place.openai(read)


async def chat_chunks(place: Place, ask: Ask) -> Read:
    """Plain iteration, as most programs do."""

    async def read(client: AsyncOpenAI) -> Read:
        texts: dict[int, str] = defaultdict(str)
        calls: dict[int, list[str]] = defaultdict(lambda: ["", "", ""])
        visa = None
        async for chunk in await client.chat.completions.create(**ask.chat(), stream=True):
            visa = (chunk.model_extra or {}).get("visa")
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                for each in choice.delta.tool_calls or ():
                    assert each.function is not None
                    parts = (each.id, each.function.name, each.function.arguments)
                    calls[each.index] = [have + (new or "") for have, new in zip(calls[each.index], parts, strict=True)]
        return Read([texts[i] for i in sorted(texts)], [(a, b, c) for a, b, c in calls.values()], visa)

    return await place.openai(read)


async def completions_whole(place: Place, ask: Ask) -> Read:
    async def read(client: AsyncOpenAI) -> Read:
        got = await client.completions.create(**ask.completions())
        return Read([choice.text for choice in got.choices], visa=(got.model_extra or {}).get("visa"))

    return await place.openai(read)


async def completions_chunks(place: Place, ask: Ask) -> Read:
    async def read(client: AsyncOpenAI) -> Read:
        texts: dict[int, str] = defaultdict(str)
        visa = None
        async for chunk in await client.completions.create(**ask.completions(), stream=True):
            visa = (chunk.model_extra or {}).get("visa")
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        return Read([texts[i] for i in sorted(texts)], visa=visa)

    return await place.openai(read)


async def responses_whole(place: Place, ask: Ask) -> Read:
    async def read(client: AsyncOpenAI) -> Read:
        return _response(await client.responses.create(**ask.responses()))

    return await place.openai(read)


async def responses_accumulated(place: Place, ask: Ask) -> Read:
    """openai-python's own accumulator: it refuses streams whose items do not fit together."""

    async def read(client: AsyncOpenAI) -> Read:
        async with client.responses.stream(**ask.responses()) as stream:
            return _response(await stream.get_final_response())

    return await place.openai(read)


async def responses_deltas(place: Place, ask: Ask) -> Read:
    """Plain iteration over what arrives; the snapshots are looked at for the tool calls and `visa` only."""

    async def read(client: AsyncOpenAI) -> Read:
        text, last = "", None
        async for event in await client.responses.create(**ask.responses(), stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
        got = _response(getattr(last, "response", None))
        return Read([text], got.calls, got.visa)

    return await place.openai(read)


def _chat(got: Any) -> Read:
    messages = [choice.message for choice in got.choices]
    calls = [(each.id, each.function.name, each.function.arguments) for message in messages for each in message.tool_calls or ()]
    return Read([message.content or "" for message in messages], calls, (got.model_extra or {}).get("visa"))


def _response(got: Any) -> Read:
    calls = [(each.call_id, each.name, each.arguments) for each in got.output if each.type == "function_call"]
    return Read([got.output_text], calls, (got.model_extra or {}).get("visa"))


def _langchain(place: Place, ask: Ask, *, responses: bool) -> Any:
    from langchain_openai import ChatOpenAI

    settings: Json = {"model": "sample", "base_url": place.url, "api_key": place.key, "max_retries": 0, "timeout": 20}
    model: Any = ChatOpenAI(**settings, **ask.sampling(), use_responses_api=responses, default_headers=dict(place.headers))
    if ask.tools:
        model = model.bind_tools([{"type": "function", "function": each} for each in FUNCTIONS])
    if ask.json:
        model = model.bind(response_format={"type": "json_schema", "json_schema": SCHEMA})
    return model


def _message(message: Any) -> Read:
    calls = [(each["id"], each["name"], json.dumps(each["args"])) for each in message.tool_calls]
    return Read([str(message.text)], calls)


def langchain_invoke(*, responses: bool) -> Reader:
    async def read(place: Place, ask: Ask) -> Read:
        from langchain_core.messages import HumanMessage

        model = _langchain(place, ask, responses=responses)
        if ask.n > 1:
            got = await model.agenerate([[HumanMessage(QUESTION)]])
            return Read([each.text for each in got.generations[0]])
        return _message(await asyncio.to_thread(model.invoke, QUESTION))

    return read


def langchain_stream(*, responses: bool) -> Reader:
    async def read(place: Place, ask: Ask) -> Read:
        model = _langchain(place, ask, responses=responses)
        parts = await asyncio.to_thread(lambda: list(model.stream(QUESTION)))
        return _message(sum(parts[1:], parts[0]))

    return read


def langchain_astream(*, responses: bool) -> Reader:
    async def read(place: Place, ask: Ask) -> Read:
        parts = [part async for part in _langchain(place, ask, responses=responses).astream(QUESTION)]
        return _message(sum(parts[1:], parts[0]))

    return read


@functools.cache
def litellm() -> Any:
    """LiteLLM, kept from fetching its list of prices, and told of the model: of one it does not know it only plays a stream."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    model = {"litellm_provider": "openai", "mode": "chat", "supports_native_streaming": True, "max_tokens": 4096}
    litellm.register_model({"openai/sample": {**model, "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}})
    return litellm


def _given(place: Place) -> Json:
    return {"api_base": place.url, "api_key": place.key, "max_retries": 0, "timeout": 20, "extra_headers": dict(place.headers)}


async def litellm_completion(place: Place, ask: Ask) -> Read:
    body = {**ask.chat(), "model": "openai/sample"}
    return _chat(await asyncio.to_thread(litellm().completion, **body, **_given(place)))


async def litellm_acompletion(place: Place, ask: Ask) -> Read:
    return _chat(await litellm().acompletion(**{**ask.chat(), "model": "openai/sample"}, **_given(place)))


async def litellm_stream(place: Place, ask: Ask) -> Read:
    body = {**ask.chat(), "model": "openai/sample", "stream": True}
    parts = await asyncio.to_thread(lambda: list(litellm().completion(**body, **_given(place))))
    return _chat(litellm().stream_chunk_builder(parts))


async def litellm_astream(place: Place, ask: Ask) -> Read:
    body = {**ask.chat(), "model": "openai/sample", "stream": True}
    parts = [part async for part in await litellm().acompletion(**body, **_given(place))]
    return _chat(litellm().stream_chunk_builder(parts))


async def litellm_responses(place: Place, ask: Ask) -> Read:
    return _response(await litellm().aresponses(**{**ask.responses(), "model": "openai/sample"}, **_given(place)))


async def litellm_responses_stream(place: Place, ask: Ask) -> Read:
    body = {**ask.responses(), "model": "openai/sample", "stream": True}
    parts = [part async for part in await litellm().aresponses(**body, **_given(place))]
    text = "".join(part.delta for part in parts if part.type == "response.output_text.delta")
    return Read([text], _response(parts[-1].response).calls)
