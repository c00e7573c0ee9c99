"""POST /v1/completions: rewritten like chat, in the words of the older surface."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.base import ANSWER, DONE, QUESTION, USAGE, FakeBase, answers, event, streams
from tests.fakes.completions import TEXT_HEAD, text_chunk, text_chunks, text_completion
from tests.fakes.events import parsed, text_of
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, asked_text, thrilled
from tests.fakes.said import CUT, FUTURE, Says, of_the_future
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "prompt": QUESTION}
PATH = "/v1/completions"
SECOND = "Add salt. Stir it well for 2 minutes."


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: full, retries: 0}"))


async def test_an_answer_is_rewritten_and_everything_else_stays_the_bases(
    proxy: Running, base: FakeBase, rewriter: FakeRewriter
) -> None:
    reply = await proxy.post(ASK, path=PATH)
    body = reply.json
    visa = body.pop("visa")
    assert body["choices"][0]["text"] == thrilled(ANSWER)
    body["choices"][0]["text"] = ANSWER
    assert body == text_completion(ANSWER)
    assert visa["status"] == reply.headers["x-visa-status"] == "adapted"
    assert visa["usage"] == {"candidates": 1, "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    assert json.loads(base.seen[0].body) == ASK
    # The prompt is the question that the rewriter is told of.
    assert QUESTION in rewriter.asked[0]["messages"][-1]["content"]
    assert "⟦1⟧ minutes" in asked_text(rewriter.asked[0])


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_says_the_same(proxy: Running, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    got = await proxy.post({**ASK, "stream": True, **options}, path=PATH)
    assert got.headers["x-visa-stream-mode"] == "full"
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = parsed(got.body)
    assert text_of(chunks) == thrilled(ANSWER)
    assert all({key: each[key] for key in TEXT_HEAD} == TEXT_HEAD and each["object"] == "text_completion" for each in chunks)
    assert [choice["finish_reason"] for each in chunks for choice in each["choices"] if choice["finish_reason"]] == ["stop"]
    assert [each["usage"] for each in chunks if each.get("usage")] == ([USAGE] if usage else [])
    assert ["visa" in each for each in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["visa"]["status"] == "adapted"


async def test_every_choice_of_every_prompt(proxy: Running, base: FakeBase) -> None:
    base.texts = [ANSWER, SECOND]
    ask = {**ASK, "prompt": [QUESTION, "And now?"], "n": 2}
    body = (await proxy.post(ask, path=PATH)).json
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in body["choices"]] == [thrilled(ANSWER), thrilled(SECOND)] * 2
    assert [each["status"] for each in body["visa"]["choices"]] == ["adapted"] * 4
    assert body["visa"]["usage"]["candidates"] == 4
    chunks = parsed((await proxy.post({**ask, "stream": True}, path=PATH)).body)
    assert [text_of(chunks, i) for i in range(4)] == [thrilled(ANSWER), thrilled(SECOND)] * 2


async def test_each_choice_is_rewritten_for_its_own_prompt(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    base.texts = [SECOND]
    await proxy.post({**ASK, "prompt": ["How much salt?", "How much sugar?"]}, path=PATH)
    prompts = [body["messages"][-1]["content"] for body in rewriter.asked]
    assert sorted("salt?" in each for each in prompts) == [False, True]
    assert sorted("sugar?" in each for each in prompts) == [False, True]


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]], "", ["a"]])
async def test_prompts_of_other_shapes(proxy: Running, prompt: Any) -> None:
    body = (await proxy.post({**ASK, "prompt": prompt}, path=PATH)).json
    assert {choice["text"] for choice in body["choices"]} == {thrilled(ANSWER)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finish_reason_stays(proxy: Running, base: FakeBase, stream: bool) -> None:
    base.says = [CUT]
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    found = parsed(got.body) if stream else [got.json]
    finishes = [choice["finish_reason"] for each in found for choice in each["choices"]]
    assert [reason for reason in finishes if reason] == ["length"]


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_stay(proxy: Running, base: FakeBase, stream: bool) -> None:
    base.future = True
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    if stream:
        chunks = parsed(got.body)
        assert text_of(chunks) == thrilled(ANSWER)
        assert all(each["x_future"] == FUTURE and choice["x_future"] == FUTURE for each in chunks for choice in each["choices"])
    else:
        body = got.json
        assert body.pop("visa")["status"] == "adapted"
        body["choices"][0]["text"] = ANSWER
        assert body == of_the_future(text_completion(ANSWER))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"logprobs": 3}, "skipped:logprobs"),
        ({"logprobs": 0}, "skipped:logprobs"),
        ({"echo": True}, "skipped:echo"),
        ({"suffix": " Enjoy."}, "skipped:infill"),
        ({"structured_outputs": {"regex": "[A-Z].*"}}, "skipped:constrained"),
        ({"return_token_ids": True}, "skipped:token-ids"),
    ],
)
async def test_requests_whose_answers_are_not_rewritten(
    proxy: Running, rewriter: FakeRewriter, change: dict[str, Any], status: str, stream: bool
) -> None:
    got = await proxy.post({**ASK, **change, "stream": stream}, path=PATH)
    assert (got.status, got.headers["x-visa-status"]) == (200, status)
    assert b"visa" not in got.body
    assert got.headers.get("x-visa-stream-mode") == ("passthrough" if stream else None)
    assert not rewriter.asked


async def test_a_passthrough_profile_relays_byte_for_byte(proxy: Running, base: FakeBase) -> None:
    sent = b"".join([*(event(each) for each in text_chunks([Says()])), DONE])
    base.answer = streams(sent)
    got = await proxy.post({**ASK, "model": "sample@off", "stream": True}, path=PATH)
    assert (got.body, got.headers["x-visa-stream-mode"], got.headers["x-visa-status"]) == (sent, "passthrough", "passthrough")


@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer(proxy: Running, base: FakeBase, text: str, stream: bool) -> None:
    chunks = [text_chunk(0, text), text_chunk(0, "", "stop")]
    base.answer = streams(*map(event, chunks), DONE) if stream else answers(text_completion(text))
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    last = parsed(got.body)[-1] if stream else got.json
    assert last["visa"]["status"] == "skipped:empty"
    assert (text_of(parsed(got.body)) if stream else last["choices"][0]["text"]) == text


@pytest.mark.parametrize("body", [{"choices": None}, {}, {"choices": [5]}, []])
async def test_an_answer_that_is_no_completion(proxy: Running, base: FakeBase, body: Any) -> None:
    base.answer = answers(body)
    got = await proxy.post(ASK, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_garbled")


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_an_unverified_rewrite_never_leaves(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    rewriter.rule = lambda _: "Buy 17 boats."
    for stream in (False, True):
        got = await proxy.post({**ASK, "stream": stream}, path=PATH)
        found = parsed(got.body) if stream else [got.json]
        assert text_of(found) == ANSWER
        assert found[-1]["visa"]["status"].startswith("fallback:unverified-")
