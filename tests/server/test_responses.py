"""POST /v1/responses and what may be asked about an answer later: the client never meets the base's own text again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import openai
import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, streams
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Reply, Running, Starter
from tests.fakes.responses import RESPONSE_USAGE, response_event
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import CALLS, CALLS_ONLY, CUT, JSON, JSON_ANSWER, REFUSES, THINKS, TOOLS, Json, Says
from visa_proxy.encoder.minilm import SentenceEncoder

ASK: Any = {"model": "sample", "input": QUESTION}
PATH = "/v1/responses"
OTHER = {"Authorization": "Bearer sk-other"}
SECOND = "Add salt. Stir it well for 2 minutes."
FULL = "{streaming: full, retries: 0}"


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder) -> Running:
    return await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=FULL))


@pytest.fixture
async def two_tenants(proxy: Running) -> Running:
    """The proxy, with a second tenant on the same base."""
    write(proxy.policies, policy(tenant="other", key="sk-other", shield=FULL), "other.yaml")
    deadline = time.monotonic() + 5
    while (await proxy.get("/v1/models", OTHER)).status == 401:
        assert time.monotonic() < deadline, "the second tenant was not read"
        await asyncio.sleep(0.02)
    return proxy


def parsed(raw: bytes) -> list[Any]:
    """The events of a well-formed stream: each says its type twice, and the numbers have no gap."""
    frames = [part for part in raw.split(b"\n\n") if part and not part.startswith(b":") and part != b"data: [DONE]"]
    events = []
    for part in frames:
        name, _, data = part.partition(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == f"event: {event['type']}".encode()
        events.append(event)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    return events


def text_of(response: Json) -> str:
    """The text of the first message."""
    message = next(item for item in response["output"] if item["type"] == "message")
    return str(message["content"][0]["text"])


def with_text(response: Json, text: str) -> Json:
    """A response with another text in its only message, and without `visa`."""
    copy: Json = json.loads(json.dumps(response))
    copy.pop("visa", None)
    next(item for item in copy["output"] if item["type"] == "message")["content"][0]["text"] = text
    return copy


async def delete(proxy: Running, path: str, headers: dict[str, str] | None = None) -> Reply:
    async with proxy.http.delete(proxy.url + path, headers=headers) as got:
        return Reply(got.status, got.headers, await got.read())


async def test_an_answer_is_rewritten_and_everything_else_stays_the_bases(proxy: Running, base: FakeBase) -> None:
    reply = await proxy.post({**ASK, "instructions": "Be brief.", "metadata": {"a": "b"}}, path=PATH)
    body = reply.json
    assert text_of(body) == thrilled(ANSWER)
    assert body["visa"]["status"] == reply.headers["x-visa-status"] == "adapted"
    assert body["visa"]["usage"] == {"candidates": 1, "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    assert body["usage"] == RESPONSE_USAGE
    assert with_text(body, ANSWER) == base.responses.kept["resp_1"].response


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_every_snapshot_of_a_stream_says_what_its_deltas_said(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield))
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


@pytest.mark.parametrize("stream", [False, True])
async def test_asked_for_again_it_is_what_it_was(proxy: Running, base: FakeBase, stream: bool) -> None:
    got = await proxy.post({**ASK, "stream": stream}, path=PATH)
    body = parsed(got.body)[-1]["response"] if stream else got.json
    again = await proxy.get(f"{PATH}/{body['id']}")
    assert (again.status, again.json, again.headers["x-visa-status"]) == (200, body, "adapted")
    items = await proxy.get(f"{PATH}/{body['id']}/input_items")
    assert items.json["data"][0]["content"][0]["text"] == QUESTION
    retrieved = await proxy.client.responses.retrieve(body["id"])
    assert retrieved.output_text == thrilled(ANSWER)


async def test_what_is_not_to_be_stored_is_not(two_tenants: Running, base: FakeBase) -> None:
    body = (await two_tenants.post({**ASK, "store": False}, path=PATH)).json
    assert text_of(body) == thrilled(ANSWER)
    assert json.loads(base.seen[-1].body)["store"] is False
    assert (await two_tenants.get(f"{PATH}/{body['id']}")).status == 404


async def test_what_is_deleted_is_forgotten(proxy: Running, base: FakeBase) -> None:
    name = (await proxy.post(ASK, path=PATH)).json["id"]
    gone = await delete(proxy, f"{PATH}/{name}")
    assert (gone.status, gone.json) == (200, {"id": name, "object": "response", "deleted": True})
    assert not base.responses.kept
    assert (await proxy.get(f"{PATH}/{name}")).status == 404
    assert (await proxy.post({**ASK, "previous_response_id": name}, path=PATH)).status in (400, 404)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_base_is_told_what_the_client_saw(proxy: Running, base: FakeBase, stream: bool) -> None:
    """Three turns: a base that went by its own record would know another conversation than the user had."""

    async def turn(**change: Any) -> Json:
        got = await proxy.post({**ASK, **change, "stream": stream}, path=PATH)
        response: Json = parsed(got.body)[-1]["response"] if stream else got.json
        return response

    first = await turn(instructions="Be brief.")
    base.texts = [SECOND]
    second = await turn(input="And salt?", previous_response_id=first["id"])
    third = await turn(input=[{"role": "user", "content": "And pepper?"}], previous_response_id=second["id"])
    assert (first["previous_response_id"], second["previous_response_id"]) == (None, first["id"])
    assert third["previous_response_id"] == second["id"]
    asked = json.loads(base.seen[-1].body)
    assert "previous_response_id" not in asked
    # Instructions are not carried over.
    assert "instructions" not in asked
    said = [(each["role"], _said(each)) for each in asked["input"]]
    assert said == [
        ("user", QUESTION),
        ("assistant", thrilled(ANSWER)),
        ("user", "And salt?"),
        ("assistant", thrilled(SECOND)),
        ("user", "And pepper?"),
    ]
    assert ANSWER not in base.seen[-1].body.decode()
    assert (await proxy.get(f"{PATH}/{third['id']}")).json["previous_response_id"] == second["id"]


def _said(item: Json) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def test_every_event_of_a_later_turn_says_what_came_before(proxy: Running) -> None:
    first = (await proxy.post(ASK, path=PATH)).json
    got = await proxy.post({**ASK, "previous_response_id": first["id"], "stream": True}, path=PATH)
    told = [each["response"]["previous_response_id"] for each in parsed(got.body) if "response" in each]
    assert told == [first["id"]] * 3


async def test_tool_calls_and_their_results_are_part_of_the_history(proxy: Running, base: FakeBase) -> None:
    base.says = [Says(TOOLS.text, reasoning="They want both.", calls=CALLS)]
    first = (await proxy.post(ASK, path=PATH)).json
    base.says = None
    results = [{"type": "function_call_output", "call_id": call.id, "output": "sunny"} for call in CALLS]
    await proxy.post({**ASK, "input": results, "previous_response_id": first["id"]}, path=PATH)
    items = json.loads(base.seen[-1].body)["input"]
    assert [each.get("type", "message") for each in items] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]
    assert _said(items[2]) == thrilled(TOOLS.text or "")
    assert [each["arguments"] for each in items[3:5]] == [call.arguments for call in CALLS]


async def test_the_sdk_continues_a_conversation(proxy: Running) -> None:
    first = await proxy.client.responses.create(**ASK)
    async with proxy.client.responses.stream(model="sample", input="And then?", previous_response_id=first.id) as stream:
        second = await stream.get_final_response()
    assert second.previous_response_id == first.id
    assert second.output_text == thrilled(ANSWER)


async def test_another_tenants_answers_are_not_there(two_tenants: Running, base: FakeBase) -> None:
    name = (await two_tenants.post(ASK, path=PATH)).json["id"]
    asked = len(base.seen)
    for reply in (
        await two_tenants.get(f"{PATH}/{name}", OTHER),
        await two_tenants.get(f"{PATH}/{name}/input_items", OTHER),
        await two_tenants.get(f"{PATH}/{name}/", OTHER),
        await two_tenants.get(f"{PATH}/{name}?stream=true", OTHER),
        await two_tenants.post({}, OTHER, f"{PATH}/{name}/cancel"),
        await delete(two_tenants, f"{PATH}/{name}", OTHER),
    ):
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    stolen = await two_tenants.post({**ASK, "previous_response_id": name}, OTHER, PATH)
    assert (stolen.status, stolen.json["error"]["code"]) == (404, "previous_response_not_found")
    assert stolen.json["error"]["param"] == "previous_response_id"
    # Nothing of it reached the base, and the owner still has it.
    assert len(base.seen) == asked
    assert (await two_tenants.get(f"{PATH}/{name}")).status == 200


async def test_relayed_answers_belong_to_their_tenant_too(two_tenants: Running) -> None:
    off = {"X-Visa-Profile": "off"}
    whole = (await two_tenants.post(ASK, off, PATH)).json["id"]
    streamed = await two_tenants.post({**ASK, "stream": True}, off, PATH)
    for name in (whole, parsed(streamed.body)[-1]["response"]["id"]):
        own = await two_tenants.get(f"{PATH}/{name}")
        assert (own.status, text_of(own.json)) == (200, ANSWER)
        assert (await two_tenants.get(f"{PATH}/{name}", OTHER)).status == 404
        assert (await two_tenants.post({**ASK, "previous_response_id": name}, {**OTHER, **off}, PATH)).status == 404
        assert (await two_tenants.post({**ASK, "previous_response_id": name}, off, PATH)).status == 200


async def test_a_conversation_that_the_base_keeps(proxy: Running, base: FakeBase) -> None:
    body = {**ASK, "conversation": "conv_1"}
    refused = await proxy.post(body, path=PATH)
    assert (refused.status, refused.json["error"]["param"]) == (400, "conversation")
    assert not base.seen
    assert (await proxy.post(body, {"X-Visa-Profile": "off"}, PATH)).status == 200
    assert json.loads(base.seen[-1].body) == body


async def test_in_the_background(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    queued = await proxy.post({**ASK, "background": True}, path=PATH)
    body = queued.json
    assert (queued.status, body["status"], body["output"]) == (200, "queued", [])
    assert not rewriter.asked
    working = (await proxy.get(f"{PATH}/{body['id']}")).json
    assert (working["status"], working["output"]) == ("in_progress", [])
    done = await proxy.get(f"{PATH}/{body['id']}")
    assert (done.json["status"], text_of(done.json)) == ("completed", thrilled(ANSWER))
    assert done.json["visa"]["status"] == done.headers["x-visa-status"] == "adapted"
    asked = len(rewriter.asked)
    assert (await proxy.get(f"{PATH}/{body['id']}")).json == done.json
    assert len(rewriter.asked) == asked
    # A later turn knows what the client saw.
    await proxy.post({**ASK, "previous_response_id": body["id"]}, path=PATH)
    items = json.loads(base.seen[-1].body)["input"]
    assert [_said(each) for each in items] == [QUESTION, thrilled(ANSWER), QUESTION]


async def test_a_background_answer_is_another_tenants_from_the_start(two_tenants: Running) -> None:
    name = (await two_tenants.post({**ASK, "background": True}, path=PATH)).json["id"]
    assert (await two_tenants.get(f"{PATH}/{name}", OTHER)).status == 404
    assert (await two_tenants.post({}, OTHER, f"{PATH}/{name}/cancel")).status == 404


async def test_a_background_stream(proxy: Running) -> None:
    got = await proxy.post({**ASK, "background": True, "stream": True}, path=PATH)
    events = parsed(got.body)
    assert [each["type"] for each in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert text_of(events[-1]["response"]) == thrilled(ANSWER)
    assert text_of((await proxy.get(f"{PATH}/{events[-1]['response']['id']}")).json) == thrilled(ANSWER)


async def test_a_background_answer_is_cancelled(proxy: Running) -> None:
    queued = await proxy.client.responses.create(**ASK, background=True)
    cancelled = await proxy.client.responses.cancel(queued.id)
    assert cancelled.status == "cancelled"
    assert (await proxy.client.responses.retrieve(queued.id)).status == "cancelled"


@pytest.mark.parametrize("profile", ["bold", "off"])
async def test_the_stream_of_a_kept_answer(proxy: Running, profile: str) -> None:
    """GET with stream=true replays the events that the base kept: its own text. Only a profile that does not rewrite shows it."""
    chosen = {"X-Visa-Profile": profile}
    first = await proxy.post({**ASK, "background": True, "stream": True}, chosen, PATH)
    again = await proxy.get(f"{PATH}/resp_1?stream=true", chosen)
    if profile == "off":
        assert (again.status, again.body) == (200, first.body)
    else:
        assert (again.status, again.json["error"]["param"]) == (400, "stream")


async def test_errors_of_the_base(proxy: Running, base: FakeBase) -> None:
    with pytest.raises(openai.NotFoundError):
        await proxy.client.responses.create(model="other", input=QUESTION)
    failed = {"type": "error", "sequence_number": 0, "code": "server_error", "message": "Out of memory.", "param": None}
    base.answer = streams(response_event(failed))
    got = await proxy.post({**ASK, "stream": True}, path=PATH)
    assert b"Out of memory." in got.body


@pytest.mark.parametrize("body", [{"id": "resp_1", "object": "response"}, {"output": 5}, []])
async def test_an_answer_that_is_no_response(proxy: Running, base: FakeBase, body: Any) -> None:
    base.answer = answers(body)
    got = await proxy.post(ASK, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_garbled")


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


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_an_unverified_rewrite_never_leaves(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield))
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
