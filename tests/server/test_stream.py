"""POST /v1/chat/completions with `stream: true` in mode `full`: the client gets the same text as without, as well-formed SSE."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.fakes.base import (
    ANSWER,
    DONE,
    HEAD,
    QUESTION,
    USAGE,
    FakeBase,
    answers,
    chunk,
    completion,
    delta,
    event,
    frames,
    streams,
)
from tests.fakes.events import parsed, text_of
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, reply
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments)


@pytest.mark.parametrize("usage", [False, True])
async def test_the_sdk_gets_the_same_text_as_without_streaming(proxy: Running, usage: bool) -> None:
    whole = await proxy.client.chat.completions.create(**ASK)
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = [each async for each in await proxy.client.chat.completions.create(**ASK, stream=True, **options)]
    text = "".join(choice.delta.content or "" for each in chunks for choice in each.choices)
    assert text == whole.choices[0].message.content
    assert text.startswith("For the thrill of it, rinse")
    assert {(each.id, each.created, each.model, each.system_fingerprint) for each in chunks} == {tuple(HEAD.values())}
    assert [choice.finish_reason for each in chunks for choice in each.choices if choice.finish_reason] == ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [each.usage.total_tokens for each in chunks if each.usage] == ([USAGE["total_tokens"]] if usage else [])
    visa = [each.model_extra["visa"] for each in chunks if each.model_extra and "visa" in each.model_extra]
    assert visa == [chunks[-1].model_extra["visa"]] if chunks[-1].model_extra else False
    assert visa[0]["status"] == "adapted"
    assert visa[0]["similarity"]["after"] > visa[0]["similarity"]["before"]


async def test_the_sdks_accumulator_takes_it(proxy: Running) -> None:
    async with proxy.client.chat.completions.stream(**ASK) as stream:
        final = await stream.get_final_completion()
    assert (final.choices[0].message.content or "").startswith("For the thrill of it, rinse")
    assert final.choices[0].finish_reason == "stop"


async def test_headers_and_form(proxy: Running) -> None:
    got = await proxy.post({**ASK, "stream": True})
    assert got.status == 200
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.headers["x-visa-stream-mode"] == "full"
    assert got.headers["x-visa-profile"] == "bold"
    assert got.headers["x-request-id"]
    assert "content-length" not in got.headers
    chunks = parsed(got.body)
    assert all(each["object"] == "chat.completion.chunk" for each in chunks)


async def test_every_choice_of_several(proxy: Running, base: FakeBase) -> None:
    base.texts = [ANSWER, "Add salt. Stir it well for 2 minutes."]
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    assert text_of(chunks, 0).startswith("For the thrill of it, rinse the rice")
    assert text_of(chunks, 1).startswith("For the thrill of it, add salt")
    assert [each["status"] for each in chunks[-1]["visa"]["choices"]] == ["adapted", "adapted"]
    base.texts = [ANSWER]
    both = parsed((await proxy.post({**ASK, "stream": True, "n": 2})).body)
    assert text_of(both, 0) == text_of(both, 1) == text_of(chunks, 0)


@pytest.mark.usefixtures("short_keep_alive")
async def test_comments_keep_the_connection_alive_while_it_waits(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    async def slow(request: web.Request, raw: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.json_response(reply("Nothing like it."))

    base.answer = streams(*frames([ANSWER[:60]]), pause_s=0.02)
    rewriter.answer = slow
    got = await proxy.post({**ASK, "stream": True})
    assert b"\n\n" + b": keep-alive\n\n" * 3 in got.body
    chunks = parsed(got.body)
    assert text_of(chunks) == ANSWER[:60]
    assert chunks[-1]["visa"]["status"].startswith("fallback:unverified-")


async def test_a_fallback_is_the_bases_text(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda _: "Buy 17 boats."
    sent = [json.loads(frame[6:]) for frame in frames([ANSWER], usage=True)[:-1]]
    got = await proxy.post({**ASK, "stream": True, "stream_options": {"include_usage": True}})
    chunks = parsed(got.body)
    assert text_of(chunks) == ANSWER
    assert chunks[0] == sent[0]
    assert chunks[-2:] == [sent[-2], sent[-1] | {"visa": chunks[-1]["visa"]}]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_tool_calls_are_passed_on_untouched(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a": 1}'}}
    sent = [
        chunk(delta(0, role="assistant", content=None)),
        chunk(delta(0, tool_calls=[call])),
        chunk(delta(0, tool_calls=[more])),
        chunk(delta(0, "tool_calls"), x_vendor=[1]),
    ]
    base.answer = streams(*[event(each) for each in sent], DONE)
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    visa = chunks[-1].pop("visa")
    assert chunks == sent
    assert visa["status"] == "skipped:tool-calls"
    assert not rewriter.asked


async def test_text_before_tool_calls_is_rewritten_before_them(proxy: Running, base: FakeBase) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = [
        chunk(delta(0, role="assistant", content=None)),
        *(chunk(delta(0, content=word + " ")) for word in ANSWER.split()),
        chunk(delta(0, tool_calls=[call])),
        chunk(delta(0, "tool_calls")),
    ]
    base.answer = streams(*[event(each) for each in sent], DONE)
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    assert chunks[-1].pop("visa")["status"] == "adapted"
    assert [chunks[0], *chunks[2:]] == [sent[0], *sent[-2:]]
    assert text_of(chunks[1:2]).startswith("For the thrill of it")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([chunk(delta(0, role="assistant", refusal="I can't.")), chunk(delta(0, "stop"))], "skipped:refusal"),
        ([chunk(delta(0, role="assistant", content="")), chunk(delta(0, "stop"))], "skipped:empty"),
        (
            [chunk(delta(0, role="assistant")), chunk(delta(0, content=" \n")), chunk(delta(0, "length"))],
            "skipped:empty",
        ),
        ([chunk(usage=USAGE)], "skipped:empty"),
    ],
)
async def test_streams_that_are_not_rewritten(proxy: Running, base: FakeBase, sent: list[Any], status: str) -> None:
    base.answer = streams(*[event(each) for each in sent], DONE)
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    assert chunks[-1].pop("visa")["status"] == status
    assert chunks == sent


async def test_unusual_streams_are_understood(proxy: Running, base: FakeBase) -> None:
    """Any chunk borders, comments, CRLF, text that other splitters break at, finish reason beside text, no [DONE]."""
    text = "Rinse the rice\u2028in cold\u0085water. Then wait for 5 minutes."
    first = json.dumps(chunk(delta(0, role="assistant", content=text[:20])), ensure_ascii=False)
    last = json.dumps(chunk(delta(0, "stop", content=text[20:])), ensure_ascii=False)
    raw = f": hello\r\n\r\nevent: x\r\ndata: {first}\r\n\r\ndata:{last}\n\n".encode()
    base.answer = streams(*[raw[i : i + 7] for i in range(0, len(raw), 7)])
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    assert text_of(chunks).startswith("For the thrill of it, rinse the rice\u2028in cold\u0085water.")
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["visa"]["status"] == "adapted"


async def test_on_failure_error_ends_the_stream_with_an_error(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{retries: 0, on_failure: error}"))
    rewriter.rule = lambda text: text
    with pytest.raises(openai.APIError) as caught:
        async for _ in await proxy.client.chat.completions.create(**ASK, stream=True):
            pass
    assert caught.value.code == "rewrite_unverified"


LONG = "\n\n".join([ANSWER] * 20)
"""More than a rewriter takes at once."""


async def test_a_text_beyond_the_rewriter_s_reach_comes_whole(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: f"{text} Make it an exciting adventure."
    base.texts = [LONG]
    chunks = parsed((await proxy.post({**ASK, "stream": True})).body)
    assert text_of(chunks).replace(" Make it an exciting adventure.", "") == LONG
    visa = chunks[-1]["visa"]
    assert visa["status"] == "adapted"
    assert visa["windows"]["adapted"] == text_of(chunks).count("exciting adventure") >= 2
    assert len([each for each in chunks if each["choices"] and each["choices"][0]["delta"].get("content")]) == 1


async def test_of_a_text_beyond_the_rewriter_s_reach_nothing_leaves_when_a_part_is_refused(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    """`on_failure: error`: whoever reads the stream gets an error and not one word."""
    shield = "{streaming: full, retries: 0, on_failure: error}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    base.texts = [f"{LONG}\n\nAt the very end, serve it with butter and with a little parsley on top."]
    rewriter.rule = lambda text: text if "parsley" in text else f"{text} Make it an exciting adventure."
    got = await proxy.post({**ASK, "stream": True})
    assert b"rewrite_unverified" in got.body
    assert b"rice" not in got.body.lower() and b"adventure" not in got.body
    assert len(rewriter.asked) >= 2
    said: list[str] = []

    async def read() -> None:
        async for each in await proxy.client.chat.completions.create(**ASK, stream=True):
            said.extend(choice.delta.content or "" for choice in each.choices)

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert caught.value.code == "rewrite_unverified"
    assert not "".join(said)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_text_that_is_too_long_is_left_alone(
    proxy: Running, base: FakeBase, rewriter: FakeRewriter, streamed: bool
) -> None:
    text = "\n\n".join([ANSWER] * 100)
    base.texts = [text]
    got = await proxy.post({**ASK, "stream": streamed})
    body = parsed(got.body) if streamed else [got.json]
    assert (text_of(body) if streamed else body[0]["choices"][0]["message"]["content"]) == text
    assert body[-1]["visa"]["status"] == "skipped:too-long"
    assert not rewriter.asked


async def test_a_base_that_does_not_stream_is_an_error(proxy: Running, base: FakeBase) -> None:
    base.answer = answers(completion(ANSWER))
    got = await proxy.post({**ASK, "stream": True})
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_garbled")
