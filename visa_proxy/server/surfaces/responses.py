"""POST /v1/responses, and the objects it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.errors import RequestError, VisaError, error_body
from visa_proxy.llm import sse
from visa_proxy.server.surfaces.base import End, Json, Key, Raw, Slot, Step, Text, garbled, json_type, last_user_text, moved

_TERMINAL: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_TOOLS: Final = ("_call", "_call_output", "mcp_list_tools", "mcp_approval_request")
_CITING: Final = ("web_search", "file_search", "code_interpreter")
"""Tools whose results are cited by positions in the text."""
PENDING: Final = ("queued", "in_progress")


def texts_of(output: Any) -> Iterator[tuple[Key, Json]]:
    """The text parts of a list of output items, by (output item, content part)."""
    for i, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict) and item.get("type") == "message":
            for j, part in enumerate(_parts(item)):
                if isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str):
                    yield (i, j), part


def _parts(item: Json) -> list[Any]:
    content = item.get("content")
    return content if isinstance(content, list) else []


def _why(output: Any) -> str:
    """Why a list of output items has no text."""
    kinds = [str(item.get("type")) for item in output if isinstance(item, dict)]
    if any(kind.endswith(_TOOLS) for kind in kinds):
        return "skipped:tool-calls"
    parts = (part for item in output if isinstance(item, dict) for part in _parts(item))
    refused = any(isinstance(part, dict) and part.get("type") == "refusal" for part in parts)
    return "skipped:refusal" if refused else "skipped:empty"


def _say(part: Json, text: str) -> None:
    """Let a text part say `text`."""
    if part.get("annotations"):
        part["annotations"] = [moved(each, part["text"], text) for each in part["annotations"]]
    part["text"] = text


def _emptied(event: Json) -> Json:
    """An event that opens an item or a part, without the text: that comes later, rewritten."""
    for _, part in texts_of([event.get("item")]):
        part["text"] = ""
    if isinstance(event.get("part"), dict) and event["part"].get("type") == "output_text":
        event["part"]["text"] = ""
    return event


@dataclass
class _Part(Slot):
    """A text part, whose annotations speak of places in it."""

    def replace(self, text: str) -> None:
        _say(self.holder, text)


class ResponsesDecoder:
    """Events that open, fill and close items, each numbered; the last ones repeat what the others said."""

    says_done = False

    def __init__(self) -> None:
        self._number = 0
        self._base: dict[Key, list[str]] = {}
        self._items: dict[int, Json] = {}
        self.finished = False

    def read(self, event: Json) -> list[Step]:
        """See Decoder."""
        kind = event["type"]
        if not isinstance(kind, str):
            raise TypeError("an event's type is a string")
        if kind == "response.output_text.delta":
            return [self._said((event["output_index"], event["content_index"]), event["delta"], event)]
        if kind in ("response.output_item.added", "response.output_item.done"):
            self._items[event["output_index"]] = event["item"]
        if kind == "response.output_text.annotation.added":
            return [End((event["output_index"], event["content_index"])), Raw(event)]
        if kind in ("response.output_item.added", "response.content_part.added"):
            return [Raw(_emptied(event))]
        finished = self._finished(kind, event)
        if finished:
            steps = [step for key, text in finished for step in (*self._late(key, text), End(key))]
            return [*steps, Raw(event)]
        if kind in _TERMINAL:
            self.finished = True
            output = event["response"].get("output")
            late = [step for key, part in texts_of(output) for step in self._late(self._streamed(key, part), part["text"])]
            return [*late, *(End(key) for key in self._base), Raw(event, last=True)]
        return [Raw(event)]

    def _finished(self, kind: str, event: Json) -> list[tuple[Key, str]]:
        """The texts that an event repeats because they are done; some servers leave the first of these events out."""
        if kind == "response.output_text.done":
            return [((event["output_index"], event["content_index"]), event["text"])]
        if kind == "response.content_part.done" and event["part"].get("type") == "output_text":
            return [((event["output_index"], event["content_index"]), event["part"]["text"])]
        if kind == "response.output_item.done":
            return [((event["output_index"], j), part["text"]) for (_, j), part in texts_of([event["item"]])]
        return []

    def _said(self, key: Key, text: Any, template: Json | None) -> Text:
        if not isinstance(text, str):
            raise TypeError("text is a string")
        self._base.setdefault(key, []).append(text)
        return Text(key, text, template)

    def _late(self, key: Key, text: str) -> list[Step]:
        """Text that comes with the end of its part only: some servers send no deltas of short ones."""
        return [] if key in self._base or not text else [self._said(key, text, None)]

    def _streamed(self, key: Key, part: Json) -> Key:
        """Under which key a part of the last snapshot was streamed: some servers count the items differently there."""
        same = [other for other, pieces in self._base.items() if "".join(pieces) == part["text"]]
        return key if key in same or not same else same[0]

    def speak(self, text: Text, rewritten: str) -> Json:
        """See Decoder."""
        assert text.template is not None, "text without an event of its own shows in later ones"
        said = {**text.template, "delta": rewritten}
        if "logprobs" in said:
            said["logprobs"] = []
        return said

    def settle(self, event: Json, sent: Mapping[Key, str]) -> Json:
        """See Decoder."""
        kind = event["type"]
        key = (event.get("output_index", -1), event.get("content_index", -1))
        if kind == "response.output_text.done" and key in sent:
            return {**event, "text": sent[key]}
        if kind == "response.output_text.annotation.added" and key in sent:
            return {**event, "annotation": moved(event.get("annotation"), "".join(self._base[key]), sent[key])}
        if kind == "response.content_part.done" and key in sent and "text" in event["part"]:
            _say(event["part"], sent[key])
        elif kind == "response.output_item.done":
            for (_, j), part in texts_of([event["item"]]):
                _say(part, sent.get((event["output_index"], j), part["text"]))
        elif kind in _TERMINAL:
            for place, part in texts_of(event["response"].get("output")):
                _say(part, sent.get(self._streamed(place, part), part["text"]))
        return event

    def conclude(self, event: Json | None, visa: Json) -> Json | None:
        """`visa` goes where it stands in a whole answer: on the response."""
        if event is None:
            return None
        return {**event, "response": {**event["response"], "visa": visa}}

    def silent(self) -> dict[Key, str]:
        """See Decoder."""
        return {} if any(self._base.values()) else {(0, 0): _why(list(self._items.values()))}

    def frame(self, event: Json) -> bytes:
        """Numbered anew: there are fewer events than the base sent."""
        if "sequence_number" in event:
            event = {**event, "sequence_number": self._number}
        self._number += 1
        return sse.frame(event, name=event["type"])

    def failure(self, error: VisaError) -> bytes:
        """See Decoder. The API's own event, and beside it `error`, without which the SDK would not raise."""
        body = error_body(error)
        detail = {name: body["error"][name] for name in ("code", "message", "param")}
        return self.frame({"type": "error", "sequence_number": 0, **detail, **body})


class ResponsesSurface:
    """Input items in, output items out."""

    path = "/responses"
    listed = "outputs"

    def check(self, data: Json) -> None:
        """See Surface."""
        given = data.get("input")
        if given is not None and not isinstance(given, str | list):
            raise RequestError(
                f"'input' must be a string or an array, got {json_type(given)}", param="input", code="invalid_type"
            )
        before = data.get("previous_response_id")
        if before is not None and not isinstance(before, str):
            raise RequestError(
                f"'previous_response_id' must be a string, got {json_type(before)}",
                param="previous_response_id",
                code="invalid_type",
            )

    def skip(self, data: Json) -> str | None:
        """See Surface."""
        include = data.get("include")
        if data.get("top_logprobs") or (isinstance(include, list) and "message.output_text.logprobs" in include):
            return "skipped:logprobs"
        tools = data.get("tools")
        kinds = [str(tool.get("type")) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        return "skipped:citations" if any(kind.startswith(_CITING) for kind in kinds) else None

    def json_asked(self, data: Json) -> bool:
        """See Surface."""
        text = data.get("text")
        kind = text.get("format") if isinstance(text, dict) else None
        return isinstance(kind, dict) and kind.get("type", "text") != "text"

    def query(self, data: Json, key: Key) -> str:
        """The last input of the user."""
        given = data.get("input")
        return given if isinstance(given, str) else last_user_text(given or [])

    def slots(self, body: Json) -> list[Slot]:
        """See Surface."""
        output = body.get("output")
        if not isinstance(output, list):
            raise garbled("answer is no response")
        why = _why(output)
        slots: list[Slot] = [_Part(key, part["text"], None, part, "text") for key, part in texts_of(output)]
        for each in slots:
            each.skip = None if each.text.strip() else why
        pending = body.get("status") in PENDING
        return slots or [Slot((0, 0), "", "skipped:pending" if pending else why, {}, "text")]

    def label(self, key: Key) -> Json:
        """See Surface."""
        return {"output_index": key[0], "content_index": key[1]}

    def decoder(self) -> ResponsesDecoder:
        """See Surface."""
        return ResponsesDecoder()
