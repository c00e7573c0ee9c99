"""What may be asked about a response later: the client never meets the base's own text again, nor another tenant's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers
from tests.fakes.http import until
from tests.fakes.policies import policy
from tests.fakes.proxy import Reply, Running, Starter
from tests.fakes.responses import parsed, text_of
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import CALLS, TOOLS, Json, Says
from tests.fakes.tenants import OTHER, with_other
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "input": QUESTION}
PATH = "/v1/responses"
SECOND = "Add salt. Stir it well for 2 minutes."
FULL = "{streaming: full, retries: 0}"


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=FULL))


@pytest.fixture
async def two_tenants(proxy: Running) -> Running:
    """The proxy, with a second tenant on the same base."""
    return await with_other(proxy, shield=FULL)


async def delete(proxy: Running, path: str, headers: dict[str, str] | None = None) -> Reply:
    async with proxy.http.delete(proxy.url + path, headers=headers) as got:
        return Reply(got.status, got.headers, await got.read())


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
    assert (await proxy.post({**ASK, "previous_response_id": name}, path=PATH)).status == 400


@pytest.mark.parametrize("status", [500, 503])
async def test_what_the_base_could_not_delete_is_kept(proxy: Running, base: FakeBase, status: int) -> None:
    body = (await proxy.post(ASK, path=PATH)).json
    base.answer = answers({"error": {"message": "No.", "type": "x", "param": None, "code": None}}, status)
    assert (await delete(proxy, f"{PATH}/{body['id']}")).status == status
    base.answer = None
    assert (await proxy.get(f"{PATH}/{body['id']}")).json == body
    second = await proxy.post({**ASK, "previous_response_id": body["id"]}, path=PATH)
    assert (second.status, second.json["previous_response_id"]) == (200, body["id"])


async def test_an_unknown_response_before_one_that_is_rewritten(proxy: Running, base: FakeBase) -> None:
    """Also for a tenant that is alone: the base may know it, but with its own text."""
    refused = await proxy.post({**ASK, "previous_response_id": "resp_of_yore"}, path=PATH)
    assert (refused.status, refused.json["error"]["code"]) == (400, "previous_response_not_found")
    assert refused.json["error"]["param"] == "previous_response_id"
    assert not base.seen
    # Left alone, the base's own record will do: what it does not know either, it says itself.
    base.answer = answers({"id": "resp_2", "object": "response", "status": "completed", "output": []})
    relayed = await proxy.post({**ASK, "previous_response_id": "resp_of_yore"}, {"X-Visa-Profile": "off"}, PATH)
    assert relayed.status == 200
    assert json.loads(base.seen[-1].body)["previous_response_id"] == "resp_of_yore"


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
        await two_tenants.get(f"{PATH}/%72{name[1:]}", OTHER),
        await two_tenants.get(f"{PATH}/{name}?stream=true", OTHER),
        await two_tenants.post({}, OTHER, f"{PATH}/{name}/cancel"),
        await delete(two_tenants, f"{PATH}/{name}", OTHER),
    ):
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    stolen = await two_tenants.post({**ASK, "previous_response_id": name}, OTHER, PATH)
    assert (stolen.status, stolen.json["error"]["code"]) == (400, "previous_response_not_found")
    assert stolen.json["error"]["param"] == "previous_response_id"
    # Nothing of it reached the base, and the owner still has it.
    assert len(base.seen) == asked
    assert (await two_tenants.get(f"{PATH}/{name}")).status == 200


@pytest.mark.parametrize("path", ["/compact", "/input_tokens"])
async def test_another_tenants_answer_is_not_there_for_other_uses_of_its_id(
    two_tenants: Running, base: FakeBase, path: str
) -> None:
    name = (await two_tenants.post(ASK, path=PATH)).json["id"]
    asked = len(base.seen)
    got = await two_tenants.post({"model": "sample", "previous_response_id": name}, OTHER, PATH + path)
    assert (got.status, got.json["error"]["code"]) == (400, "previous_response_not_found")
    assert len(base.seen) == asked


async def test_another_tenants_items_cannot_be_referred_to(two_tenants: Running, base: FakeBase) -> None:
    """The base would put its own text in the place of a reference, whoever it belongs to."""
    item = (await two_tenants.post(ASK, path=PATH)).json["output"][0]["id"]
    asked = len(base.seen)
    body = {**ASK, "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "Repeat that."}]}
    got = await two_tenants.post(body, OTHER, PATH)
    assert (got.status, got.json["error"]["code"]) == (400, "item_not_found")
    assert got.json["error"]["param"] == "input[0].id"
    assert len(base.seen) == asked


async def test_a_reference_to_an_item_means_what_the_client_saw(proxy: Running, base: FakeBase) -> None:
    item = (await proxy.post(ASK, path=PATH)).json["output"][0]["id"]
    body = {**ASK, "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "Repeat that."}]}
    got = await proxy.post(body, path=PATH)
    assert (got.status, text_of(got.json)) == (200, thrilled(ANSWER))
    sent = json.loads(base.seen[-1].body)["input"]
    # The base would put its own text in the place of a reference.
    assert [(each["role"], _said(each)) for each in sent] == [("assistant", thrilled(ANSWER)), ("user", "Repeat that.")]


async def test_relayed_answers_belong_to_their_tenant_too(two_tenants: Running) -> None:
    off = {"X-Visa-Profile": "off"}
    whole = (await two_tenants.post(ASK, off, PATH)).json["id"]
    streamed = await two_tenants.post({**ASK, "stream": True}, off, PATH)
    for name in (whole, parsed(streamed.body)[-1]["response"]["id"]):
        own = await two_tenants.get(f"{PATH}/{name}")
        assert (own.status, text_of(own.json)) == (200, ANSWER)
        assert (await two_tenants.get(f"{PATH}/{name}", OTHER)).status == 404
        assert (await two_tenants.post({**ASK, "previous_response_id": name}, {**OTHER, **off}, PATH)).status == 400
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


async def test_a_client_that_leaves_a_background_stream_asks_for_the_answer_later(proxy: Running, base: FakeBase) -> None:
    base.hold = asyncio.Event()
    raw = b""
    async with proxy.http.post(f"{proxy.url}{PATH}", json={**ASK, "background": True, "stream": True}) as got:
        async for piece in got.content.iter_any():
            raw += piece
            if b"response.created" in raw and raw.endswith(b"\n\n"):
                break
        got.close()
    await until(lambda: base.gone == 1, 5, "the end of the request at the base")
    name = json.loads(raw.split(b"data: ", 1)[1].partition(b"\n")[0])["response"]["id"]
    base.responses.kept[name].polls = 0
    done = await proxy.get(f"{PATH}/{name}")
    assert (done.status, done.json["status"], text_of(done.json)) == (200, "completed", thrilled(ANSWER))
    assert done.headers["x-visa-status"] == "adapted"


async def test_a_background_answer_is_cancelled(proxy: Running) -> None:
    queued = await proxy.client.responses.create(**ASK, background=True)
    cancelled = await proxy.client.responses.cancel(queued.id)
    assert cancelled.status == "cancelled"
    assert (await proxy.client.responses.retrieve(queued.id)).status == "cancelled"


async def test_a_turn_that_is_not_rewritten_after_one_that_was(proxy: Running, base: FakeBase) -> None:
    """A passthrough profile leaves the new answer alone; the history is still what the client saw."""
    first = (await proxy.post(ASK, path=PATH)).json
    second = await proxy.post({**ASK, "previous_response_id": first["id"]}, {"X-Visa-Profile": "off"}, PATH)
    assert [_said(each) for each in json.loads(base.seen[-1].body)["input"]] == [QUESTION, thrilled(ANSWER), QUESTION]
    assert text_of(second.json) == ANSWER
    third = (await proxy.post({**ASK, "previous_response_id": second.json["id"]}, path=PATH)).json
    assert (third["previous_response_id"], text_of(third)) == (second.json["id"], thrilled(ANSWER))
    assert second.json["previous_response_id"] is None, "byte for byte: the base was given the history itself"


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


def _said(item: Json) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
