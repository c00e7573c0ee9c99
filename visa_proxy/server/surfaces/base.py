"""What every surface has in common: a request, the texts of its answer, and the steps of a streamed answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from visa_proxy.errors import RequestError, UpstreamError, VisaError
from visa_proxy.shield.json_fields import FORM_OPTIONS, SCHEMA_OPTIONS

Json = dict[str, Any]
Key = tuple[int, ...]
"""Which text of an answer: (choice,), or (output item, content part) on the Responses API."""

_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_JSON_OUTPUTS: Final = frozenset(("json", "json_object"))
"""In vLLM's `structured_outputs`."""


@dataclass
class Slot:
    """One text of a whole answer, and where it stands."""

    key: Key
    text: str
    skip: str | None
    """Why it is not rewritten: `skipped:<why>`, or None."""
    holder: Json
    name: str
    """`holder[name]` is the text."""

    def replace(self, text: str) -> None:
        self.holder[self.name] = text


@dataclass(frozen=True)
class Text:
    """A piece of the base's text. `template` is the event it came in; None: the base sent it in no event of its own."""

    key: Key
    text: str
    template: Json | None


@dataclass(frozen=True)
class End:
    """What came of this text so far is to be released before anything that follows."""

    key: Key


@dataclass(frozen=True)
class Raw:
    """An event without text of the answer, passed on in its place."""

    event: Json
    last: bool = False
    """It may be the last one: the `visa` object may have to go on it."""


Step = Text | End | Raw


class Decoder(Protocol):
    """One streamed answer: the base's events become steps, and steps become events for the client."""

    says_done: bool
    """Streams of this kind end with `data: [DONE]`, whether the base sent it or not."""

    @property
    def finished(self) -> bool:
        """Everything the base began it has also ended."""
        ...

    def read(self, event: Json) -> list[Step]:
        """The steps of one event. Raises KeyError, TypeError, ValueError or AttributeError when it is garbled."""
        ...

    def speak(self, text: Text, rewritten: str) -> Json:
        """The event that carries `rewritten` in the place of `text`, whose template is not None."""
        ...

    def settle(self, event: Json, sent: Mapping[Key, str]) -> Json:
        """A raw event as it leaves: where it repeats texts, these are what was sent."""
        ...

    def conclude(self, event: Json | None, visa: Json) -> Json | None:
        """The last event with `visa` on it; one of our own where the base sent none that could carry it."""
        ...

    def silent(self) -> dict[Key, str]:
        """Parts of the answer that had no text, and why: `skipped:<why>`."""
        ...

    def frame(self, event: Json) -> bytes:
        """As server-sent event."""
        ...

    def failure(self, error: VisaError) -> bytes:
        """The server-sent event that ends a stream that failed; OpenAI's SDK raises it."""
        ...


class Surface(Protocol):
    """One generating URL of the OpenAI API."""

    path: str
    """Below /v1."""
    listed: str
    """What several texts of one answer are called in `visa`."""

    def check(self, data: Json) -> None:
        """Raises RequestError naming the field of a request that is missing or of a wrong type."""
        ...

    def skip(self, data: Json) -> str | None:
        """Why the answers to a request are not rewritten: `skipped:<why>`, or None. JSON aside: see `json_asked`."""
        ...

    def json_asked(self, data: Json) -> bool:
        """Whether the answer is to be JSON."""
        ...

    def query(self, data: Json, key: Key) -> str:
        """What the text `key` of the answer is an answer to; "" when that is no text."""
        ...

    def slots(self, body: Json) -> list[Slot]:
        """The texts of a whole answer, at least one (an answer without text has one that says why). Raises UpstreamError."""
        ...

    def label(self, key: Key) -> Json:
        """How `visa` names one of several texts."""
        ...

    def decoder(self) -> Decoder: ...


@dataclass(frozen=True)
class Request:
    """The fields of a request that decide what happens to its answer; everything else belongs to the base."""

    surface: Surface
    data: Json
    raw: bytes
    model: str | None
    """Without the suffix."""
    suffix: str | None
    """The profile of `model@profile`."""
    stream: bool
    user: str | None

    @classmethod
    def parse(cls, surface: Surface, raw: bytes) -> Request:
        """Raises RequestError naming the field that is missing or of a wrong type."""
        data = json_object(raw)
        name, suffix = split_model(typed(data, "model", str, "a string") or "")
        surface.check(data)
        return cls(
            surface=surface,
            data=data,
            raw=raw,
            model=name or None,
            suffix=suffix or None,
            stream=bool(typed(data, "stream", bool, "a boolean")),
            user=typed(data, "user", str, "a string"),
        )

    @property
    def skip(self) -> str | None:
        """Why the answers are not rewritten, JSON aside."""
        if any(self.data.get(name) for name in FORM_OPTIONS):
            return "skipped:constrained"
        outputs = self.data.get("structured_outputs")
        if isinstance(outputs, dict) and not _JSON_OUTPUTS & set(outputs):
            return "skipped:constrained"
        if self.data.get("return_token_ids"):  # they would be those of another text
            return "skipped:token-ids"
        return self.surface.skip(self.data)

    @property
    def json_asked(self) -> bool:
        """Whether the answer is to be JSON."""
        outputs = self.data.get("structured_outputs")
        structured = isinstance(outputs, dict) and bool(_JSON_OUTPUTS & set(outputs))
        return structured or any(self.data.get(name) for name in SCHEMA_OPTIONS) or self.surface.json_asked(self.data)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences, however they were given."""
        given = self.data.get("stop")
        listed = given if isinstance(given, list) else [given]
        return tuple(stop for stop in listed if isinstance(stop, str) and stop)

    def forward(self, *, model: str | None) -> bytes:
        """The body for the base: the client's own bytes, unless the model's name has to change. Raises RequestError without one.

        `model`: for a request that names none.
        """
        name = self.model or model
        if name is None:
            raise RequestError("you must provide a model parameter", param="model")
        return self.named(name)

    def named(self, model: str) -> bytes:
        """The body that asks for `model`."""
        return self.raw if model == self.data.get("model") else encoded({**self.data, "model": model})


def json_object(raw: bytes) -> Json:
    """Raises RequestError when `raw` is not a JSON object."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the request body is not valid JSON: {error}", param="body", code="invalid_json") from error
    if not isinstance(data, dict):
        raise RequestError("the request body must be a JSON object", param="body", code="invalid_json")
    return data


def encoded(data: Json) -> bytes:
    """A request that had to be changed. Raises RequestError when it is nested more deeply than can be written."""
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError as error:
        raise RequestError("the request body is nested too deeply", param="body", code="invalid_json") from error


def typed(data: Json, name: str, kind: type, what: str) -> Any:
    """The field, None when absent or null. Raises RequestError naming it when it is of another type."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RequestError(f"'{name}' must be {what}, got {json_type(value)}", param=name, code="invalid_type")
    return value


def json_type(value: Any) -> str:
    """What a JSON value is called in an error message."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "null")


def positive(data: Json, name: str) -> None:
    """Raises RequestError unless the field is absent or an integer of at least 1."""
    count = typed(data, name, int, "an integer")
    if count is not None and count < 1:
        raise RequestError(f"'{name}' must be at least 1, got {count}", param=name)


def split_model(name: str) -> tuple[str, str]:
    """`model@profile` → (model, profile), `@profile` → ("", profile); ("model", "") without a profile.

    Some model names hold an @ of their own (`@cf/meta/llama`, `claude@20240229`): what follows the last one is a profile only when it
    could be the name of one and is no bare number.
    """
    head, _, tail = name.rpartition("@")
    if "@" not in name:
        return name, ""
    return (head, tail) if not tail or (_PROFILE.fullmatch(tail) and not tail.isdigit()) else (name, "")


def content_text(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def last_user_text(messages: list[Any]) -> str:
    """The text of the last message of the user."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return content_text(message.get("content"))
    return ""


def moved(annotation: Any, base: str, text: str) -> Any:
    """An annotation of `base` with its positions in `text`: where the words it is about stand there, else at the end.

    Takes those with `start_index` and `end_index`, on the annotation itself or in its `url_citation`.
    """
    if base == text or not isinstance(annotation, dict):
        return annotation
    inner = annotation.get("url_citation")
    if isinstance(inner, dict):
        return {**annotation, "url_citation": moved(inner, base, text)}
    start, end = annotation.get("start_index"), annotation.get("end_index")
    if not isinstance(start, int) or not isinstance(end, int):
        return annotation
    words = base[start:end]
    place = text.find(words) if words else -1
    place, length = (place, len(words)) if place >= 0 else (len(text), 0)
    return {**annotation, "start_index": place, "end_index": place + length}


def garbled(what: str) -> UpstreamError:
    """An answer that does not keep to the API."""
    return UpstreamError(f"the base model's {what}", code="upstream_garbled")
