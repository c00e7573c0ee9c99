"""The Responses surface of the fake base model: answers, their events, and the answers it keeps."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.fakes.said import Json, Says, of_the_future, pieces

RESPONSE_USAGE: Json = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 22,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 33,
}
_ECHOED: Json = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response says about its request, with the values it has when the request does not say."""


@dataclass(frozen=True)
class Item:
    """One output item: how it begins, the events that fill it (their place aside), and how it ends."""

    begins: Json
    events: list[Json]
    ends: Json


@dataclass
class Stored:
    """An answer that the base keeps."""

    response: Json
    events: list[Json]
    given: list[Json]
    """Its input items."""
    polls: int = 0
    """GETs that it is still being worked on."""


@dataclass
class ResponsesSurface:
    """POST and GET /v1/responses; answers get the ids resp_1, resp_2, …"""

    polls: int = 1
    """GETs of a background answer that find it in progress."""
    kept: dict[str, Stored] = field(default_factory=dict)
    made: int = 0

    def create(self, data: Json, said: Sequence[Says], *, future: bool) -> web.Response | list[bytes]:
        """The answer to a POST: whole, or the frames of a stream."""
        previous = data.get("previous_response_id")
        if previous is not None and previous not in self.kept:
            message = f"Previous response with id '{previous}' not found."
            return _error(400, message, param="previous_response_id", code="previous_response_not_found")
        self.made += 1
        items = [item for i, each in enumerate(said) for item in items_of(each, f"{self.made}_{i}")]
        response = response_of(f"resp_{self.made}", data, items, cut=any(each.cut for each in said))
        events = list(events_of(response, items))
        if future:
            response, events = of_the_future(response), of_the_future(events)
            events.insert(2, {"type": "response.x_future.delta", "delta": "a", "x_future": 1})
        events = [{"type": each["type"], "sequence_number": i, **each} for i, each in enumerate(events)]
        stored = Stored(response, events, _input_items(data.get("input")), self.polls if data.get("background") else 0)
        if data.get("store") is not False:
            self.kept[response["id"]] = stored
        if data.get("stream"):
            return [response_event(each) for each in events]
        return web.json_response(_at(response, "queued") if data.get("background") else response)

    def stored(self, request: web.Request) -> web.Response | list[bytes]:
        """GET, DELETE, POST …/cancel and GET …/input_items of an answer that is kept."""
        name, _, rest = request.path.removeprefix("/v1/responses/").partition("/")
        stored = self.kept.get(name)
        if stored is None:
            return _error(404, f"Response with id '{name}' not found.")
        match (request.method, rest):
            case ("GET", "input_items"):
                return web.json_response({"object": "list", "data": stored.given, "has_more": False})
            case ("GET", "") if request.query.get("stream") == "true":
                after = int(request.query.get("starting_after", -1))
                return [response_event(each) for each in stored.events[after + 1 :]]
            case ("GET", ""):
                stored.polls -= 1
                return web.json_response(_at(stored.response, "in_progress") if stored.polls >= 0 else stored.response)
            case ("DELETE", ""):
                del self.kept[name]
                return web.json_response({"id": name, "object": "response", "deleted": True})
            case ("POST", "cancel") if stored.response["background"]:
                stored.response, stored.polls = _at(stored.response, "cancelled"), 0
                return web.json_response(stored.response)
        return _error(400, "Cannot cancel a synchronous response.")


def response_of(name: str, data: Json, items: list[Item], *, cut: bool = False) -> Json:
    """The finished response object."""
    echoed = {key: data.get(key, value) for key, value in _ECHOED.items()}
    output = [item.ends for item in items]
    if cut:
        output = [*output[:-1], {**output[-1], "status": "incomplete"}]
    return {
        "id": name,
        "object": "response",
        "created_at": 1_700_000_001,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else 1_700_000_002,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": "sample",
        "output": output,
        **echoed,
        "usage": RESPONSE_USAGE,
    }


def events_of(response: Json, items: list[Item]) -> Iterator[Json]:
    """The events of the answer in order, sequence numbers aside."""
    yield {"type": "response.created", "response": _at(response, "queued" if response["background"] else "in_progress")}
    if response["background"]:
        yield {"type": "response.queued", "response": _at(response, "queued")}
    yield {"type": "response.in_progress", "response": _at(response, "in_progress")}
    for index, (item, ends) in enumerate(zip(items, response["output"], strict=True)):
        yield {"type": "response.output_item.added", "output_index": index, "item": item.begins}
        for each in item.events:
            yield {"item_id": ends["id"], "output_index": index, **each}
        yield {"type": "response.output_item.done", "output_index": index, "item": ends}
    yield {"type": f"response.{response['status']}", "response": response}


def items_of(said: Says, name: str) -> list[Item]:
    """The output items of one choice; their ids end in `name`."""
    found = [] if said.reasoning is None else [_reasoning(f"rs_{name}", said.reasoning)]
    if said.refusal is not None:
        found.append(_message(f"msg_{name}", {"type": "refusal"}, "refusal", "refusal", said.refusal))
    elif said.text is not None:
        found.append(
            _message(f"msg_{name}", {"type": "output_text", "annotations": [], "logprobs": []}, "output_text", "text", said.text)
        )
    for i, call in enumerate(said.calls):
        ends = {"id": f"fc_{name}_{i}", "type": "function_call", "call_id": call.id, "name": call.name}
        events: list[Json] = [
            {"type": "response.function_call_arguments.delta", "delta": piece} for piece in pieces(call.arguments)
        ]
        events.append({"type": "response.function_call_arguments.done", "arguments": call.arguments})
        found.append(
            Item(
                {**ends, "status": "in_progress", "arguments": ""},
                events,
                {**ends, "status": "completed", "arguments": call.arguments},
            )
        )
    return found


def _message(name: str, part: Json, event: str, key: str, text: str) -> Item:
    """`event` and `key`: what the part's deltas and its text are called."""
    extra: Json = {"logprobs": []} if key == "text" else {}
    events: list[Json] = [{"type": "response.content_part.added", "content_index": 0, "part": {**part, key: ""}}]
    events += [{"type": f"response.{event}.delta", "content_index": 0, "delta": piece, **extra} for piece in pieces(text)]
    events.append({"type": f"response.{event}.done", "content_index": 0, key: text, **extra})
    events.append({"type": "response.content_part.done", "content_index": 0, "part": {**part, key: text}})
    ends = {"id": name, "type": "message", "role": "assistant", "status": "completed", "content": [{**part, key: text}]}
    return Item({**ends, "status": "in_progress", "content": []}, events, ends)


def _reasoning(name: str, text: str) -> Item:
    part = {"type": "summary_text", "text": text}
    events: list[Json] = [{"type": "response.reasoning_summary_part.added", "summary_index": 0, "part": {**part, "text": ""}}]
    events += [{"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": piece} for piece in pieces(text)]
    events.append({"type": "response.reasoning_summary_text.done", "summary_index": 0, "text": text})
    events.append({"type": "response.reasoning_summary_part.done", "summary_index": 0, "part": part})
    return Item({"id": name, "type": "reasoning", "summary": []}, events, {"id": name, "type": "reasoning", "summary": [part]})


def _at(response: Json, status: str) -> Json:
    """The response object while it has nothing to show."""
    return {**response, "status": status, "output": [], "usage": None, "completed_at": None, "incomplete_details": None}


def _input_items(given: Any) -> list[Json]:
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [{"id": f"in_{i}", **each} for i, each in enumerate(given or [])]


def response_event(data: Json) -> bytes:
    """One SSE frame, with its `event:` line."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return web.json_response({"error": error}, status=status)


@functools.cache
def known_events() -> TypeAdapter[ResponseStreamEvent]:
    """openai-python's own models of the events; built when first needed, because that takes a while."""
    return TypeAdapter(ResponseStreamEvent)


def parsed(raw: bytes) -> list[Json]:
    """The events of a well-formed stream: each says its type twice and has every field of the API; the numbers have no gap."""
    frames = [part for part in raw.split(b"\n\n") if part and not part.startswith(b":") and part != b"data: [DONE]"]
    events = []
    for part in frames:
        name, _, data = part.partition(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == f"event: {event['type']}".encode()
        if "x_future" not in event["type"]:
            known_events().validate_python(event)
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
