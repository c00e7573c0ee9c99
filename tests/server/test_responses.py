"""POST /v1/responses: what is rewritten, what is left alone, and every place where an answer repeats itself."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, streams
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.responses import RESPONSE_USAGE, parsed, response_event, text_of, with_text
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import CALLS, CALLS_ONLY, CUT, JSON, JSON_ANSWER, REFUSES, THINKS, TOOLS, Json, Says
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "input": QUESTION}
PATH = "/v1/responses"
SECOND = "Add salt. Stir it well for 2 minutes."
FULL = "{streaming: full, retries: 0}"


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=FULL))


async def test_an_answer_is_rewritten_and_everything_else_stays_the_bases(proxy: Running, base: FakeBase) -> None:
    reply = await proxy.post({**ASK, "instructions": "Be brief.", "metadata": {"a": "b"}}, path=PATH)
    body = reply.json
    Response.model_validate(body)
    assert text_of(body) == thrilled(ANSWER)
    assert body["visa"]["status"] == reply.headers["x-visa-status"] == "adapted"
    assert body["visa"]["usage"] == {"candidates": 1, "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    assert body["usage"] == RESPONSE_USAGE
    assert with_text(body, ANSWER) == base.responses.kept["resp_1"].response


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_every_snapshot_of_a_stream_says_what_its_deltas_said(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    got = await proxy.post({**ASK, "stream": True}, path=PATH)
    assert got.headers["x-visa-stream-mode"] == streaming
    events = parsed(got.body)
    text = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    assert text.startswith("For the thrill of it, rinse the rice")
    by_type = {each["type"]: each for each in events}
    assert by_type["response.output_text.done"]["text"] == text
    assert by_type["response.content_part.done"]["part"]["text"] == text
    assert by_type["response.output_item.done"]["item"]["content"][0]["text"] == text
    assert text_of(by_type["response.completed"]["response"]) == text
    assert ["visa" in each.get("response", {}) for each in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["response"]["visa"]["status"] == "adapted"
    if streaming == "full":
        assert text == thrilled(ANSWER)


async def test_a_stream_keeps_the_order_and_the_places_of_the_bases(proxy: Running, base: FakeBase) -> None:
    base.says = [Says("Let me look it up for you.", reasoning="They want both.", calls=CALLS)]
    events = parsed((await proxy.post({**ASK, "stream": True}, path=PATH)).body)
    sent = base.responses.kept["resp_1"].events

    def shape(events: list[Any]) -> list[Any]:
        """Runs of deltas count once."""
        places = [(each["type"], each.get("output_index"), each.get("item_id")) for each in events]
        return [place for i, place in enumerate(places) if i == 0 or place != places[i - 1]]

    assert shape(events) == shape(sent)
    assert [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
    for kind in ("response.function_call_arguments", "response.reasoning_summary_text"):
        assert [_unnumbered(each) for each in events if each["type"].startswith(kind)] == [
            _unnumbered(each) for each in sent if each["type"].startswith(kind)
        ]
    others = [item for item in events[-1]["response"]["output"] if item["type"] != "message"]
    assert others == [item for item in sent[-1]["response"]["output"] if item["type"] != "message"]


def _unnumbered(event: Json) -> Json:
    return {name: value for name, value in event.items() if name != "sequence_number"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("says", "status"),
    [
        (TOOLS, "adapted"),
        (THINKS, "adapted"),
        (CALLS_ONLY, "skipped:tool-calls"),
        (REFUSES, "skipped:refusal"),
        (Says(""), "skipped:empty"),
    ],
)
async def test_answers_of_several_kinds(proxy: Running, base: FakeBase, says: Says, status: str, stream: bool) -> None:
    base.says = [says]
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    body = parsed(got.body)[-1]["response"] if stream else got.json
    kept = base.responses.kept["resp_1"].response
    assert body["visa"]["status"] == status
    if status == "adapted":
        assert text_of(body) == thrilled(says.text or "")
        assert with_text(body, says.text or "") == kept
    else:
        assert {name: value for name, value in body.items() if name != "visa"} == kept


async def test_an_answer_cut_short_stays_incomplete(proxy: Running, base: FakeBase) -> None:
    base.says = [CUT]
    body = (await proxy.post(ASK, path=PATH)).json
    events = parsed((await proxy.post({**ASK, "stream": True}, path=PATH)).body)
    assert events[-1]["type"] == "response.incomplete"
    for response in (body, events[-1]["response"]):
        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (response["output"][0]["status"], response["visa"]["status"]) == ("incomplete", "adapted")
        assert text_of(response) == thrilled(CUT.text or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_every_message_of_several_is_rewritten(proxy: Running, base: FakeBase, stream: bool) -> None:
    base.says = [Says(), Says(SECOND, calls=CALLS[:1])]
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    body = parsed(got.body)[-1]["response"] if stream else got.json
    assert [item["type"] for item in body["output"]] == ["message", "message", "function_call"]
    assert [item["content"][0]["text"] for item in body["output"][:2]] == [thrilled(ANSWER), thrilled(SECOND)]
    assert body["visa"]["status"] == "adapted"
    assert body["visa"]["usage"]["candidates"] == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_and_events_stay(proxy: Running, base: FakeBase, stream: bool) -> None:
    base.future = True
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    body = got.json if not stream else parsed(got.body)[-1]["response"]
    assert with_text(body, ANSWER) == base.responses.kept["resp_1"].response
    if stream:
        events = parsed(got.body)
        assert "response.x_future.delta" in [each["type"] for each in events]
        assert all("x_future" in each for each in events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "skipped:json"),
        ({"text": {"format": {"type": "json_object"}}}, "skipped:json"),
        ({"include": ["message.output_text.logprobs"]}, "skipped:logprobs"),
        ({"top_logprobs": 2}, "skipped:logprobs"),
        ({"tools": [{"type": "web_search"}]}, "skipped:citations"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "skipped:citations"),
    ],
)
async def test_requests_whose_answers_are_relayed(
    proxy: Running, base: FakeBase, rewriter: FakeRewriter, change: Json, status: str, stream: bool
) -> None:
    base.says = [JSON]
    got = await proxy.post({**ASK, **change, "stream": stream}, path=PATH)
    kept = base.responses.kept["resp_1"]
    assert (got.status, got.headers["x-visa-status"]) == (200, status)
    assert got.headers.get("x-visa-stream-mode") == ("passthrough" if stream else None)
    assert got.body == (b"".join(map(response_event, kept.events)) if stream else json.dumps(kept.response).encode())
    assert text_of(kept.response) == JSON_ANSWER
    assert not rewriter.asked


FAILED: Json = {"type": "error", "sequence_number": 0, "code": "server_error", "message": "Out of memory.", "param": None}


async def test_an_error_of_the_base(proxy: Running) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await proxy.client.responses.create(model="other", input=QUESTION)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (404, "404", "model")
    assert "The model does not exist." in caught.value.message


async def test_an_error_that_a_stream_begins_with_is_an_http_error(proxy: Running, base: FakeBase) -> None:
    base.answer = streams(response_event(FAILED))
    got = await proxy.post({**ASK, "stream": True}, path=PATH)
    assert (got.status, got.headers["content-type"]) == (502, "application/json")
    error = got.json["error"]
    assert (error["message"], error["code"], error["param"]) == ("Out of memory.", "server_error", None)
    with pytest.raises(openai.APIStatusError, match="Out of memory") as caught:
        await proxy.client.responses.create(**ASK, stream=True)
    assert (caught.value.status_code, caught.value.code) == (502, "server_error")


async def test_an_error_in_the_middle_of_a_stream_is_an_event(proxy: Running, base: FakeBase) -> None:
    """The API's own `error` event, with the next number, and an `error` in it that the SDK raises."""
    await proxy.post(ASK, path=PATH)
    begun = base.responses.kept["resp_1"].events[:9]
    base.answer = streams(*map(response_event, [*begun, {**FAILED, "sequence_number": 9}]))
    got = await proxy.post({**ASK, "stream": True}, path=PATH)
    assert got.status == 200
    events = parsed(got.body)  # which numbers have no gap, and `event:` says what `type` says
    last = events[-1]
    assert (last["type"], last["code"], last["message"], last["param"]) == ("error", "server_error", "Out of memory.", None)
    assert last["error"]["message"] == "Out of memory."
    assert [each["type"] for each in events].count("error") == 1
    with pytest.raises(openai.APIError, match="Out of memory") as caught:
        async for _ in await proxy.client.responses.create(**ASK, stream=True):
            pass
    assert caught.value.code == "server_error"


@pytest.mark.parametrize("body", [{"id": "resp_1", "object": "response"}, {"output": 5}, []])
async def test_an_answer_that_is_no_response(proxy: Running, base: FakeBase, body: Any) -> None:
    base.answer = answers(body)
    got = await proxy.post(ASK, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_garbled")


@pytest.mark.parametrize("streaming", ["full", "window"])
@pytest.mark.parametrize("left_out", [{"response.output_text.done"}, {"response.output_text.done", "response.content_part.done"}])
async def test_a_stream_whose_texts_are_never_said_to_be_done(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, streaming: str, left_out: set[str]
) -> None:
    """Some servers go from the deltas straight to the end of the item."""
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    await proxy.post(ASK, path=PATH)
    kept = [each for each in base.responses.kept["resp_1"].events if each["type"] not in left_out]
    base.answer = streams(*(response_event({**each, "sequence_number": i}) for i, each in enumerate(kept)))
    events = parsed((await proxy.post({**ASK, "stream": True}, path=PATH)).body)
    text = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    assert text.startswith("For the thrill of it, rinse the rice")
    by_type = {each["type"]: each for each in events}
    assert not left_out & set(by_type)
    assert by_type["response.output_item.done"]["item"]["content"][0]["text"] == text
    assert text_of(by_type["response.completed"]["response"]) == text
    assert by_type["response.completed"]["response"]["visa"]["status"] == "adapted"
    kinds = [each["type"] for each in events]
    last_delta = len(kinds) - 1 - kinds[::-1].index("response.output_text.delta")
    assert last_delta < kinds.index("response.output_item.done"), "text behind the end of its item"


async def test_a_failure_in_the_middle_passes_through(proxy: Running, base: FakeBase) -> None:
    await proxy.post(ASK, path=PATH)
    events = base.responses.kept["resp_1"].events[:6]
    error = {"code": "server_error", "message": "Out of memory."}
    response = {**events[0]["response"], "status": "failed", "error": error}
    sent = [*events, {"type": "response.failed", "sequence_number": len(events), "response": response}]
    base.answer = streams(*map(response_event, sent))
    got = await proxy.post({**ASK, "stream": True}, path=PATH)
    last = parsed(got.body)[-1]
    assert (last["type"], last["response"]["error"]) == ("response.failed", error)


async def test_a_stream_that_breaks_off_is_an_error(proxy: Running, base: FakeBase) -> None:
    await proxy.post(ASK, path=PATH)
    base.answer = streams(*map(response_event, base.responses.kept["resp_1"].events[:9]))
    with pytest.raises(openai.APIError, match="broke off"):
        async for _ in await proxy.client.responses.create(**ASK, stream=True):
            pass


async def test_on_failure_error(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> None:
    shield = "{streaming: full, retries: 0, on_failure: error}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    rewriter.rule = lambda text: text
    whole = await proxy.post(ASK, path=PATH)
    assert (whole.status, whole.json["error"]["code"]) == (502, "rewrite_unverified")
    with pytest.raises(openai.APIError) as caught:
        async for _ in await proxy.client.responses.create(**ASK, stream=True):
            pass
    assert caught.value.code == "rewrite_unverified"


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_an_unverified_rewrite_never_leaves(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    rewriter.rule = lambda _: "Buy 17 boats."
    for stream in (False, True):
        got = await proxy.post({**ASK, "stream": stream}, path=PATH)
        body = parsed(got.body)[-1]["response"] if stream else got.json
        assert text_of(body) == ANSWER
        assert body["visa"]["status"].startswith("fallback:unverified-")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_passthrough_profile_relays_byte_for_byte(proxy: Running, base: FakeBase, stream: bool) -> None:
    got = await proxy.post({**ASK, "model": "sample@off", "stream": stream}, path=PATH)
    kept = base.responses.kept["resp_1"]
    assert got.body == (b"".join(map(response_event, kept.events)) if stream else json.dumps(kept.response).encode())
    assert got.headers["x-visa-status"] == "passthrough"
    assert got.headers.get("x-visa-stream-mode") == ("passthrough" if stream else None)


@pytest.mark.parametrize(
    ("change", "param"),
    [({"input": 5}, "input"), ({"previous_response_id": 5}, "previous_response_id"), ({"stream": "yes"}, "stream")],
)
async def test_wrong_types_are_refused(proxy: Running, base: FakeBase, change: Json, param: str) -> None:
    got = await proxy.post({**ASK, **change}, path=PATH)
    assert (got.status, got.json["error"]["param"]) == (400, param)
    assert not base.seen
