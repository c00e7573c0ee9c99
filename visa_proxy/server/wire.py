"""The chat completions format: what of it we read, and the only places where we change it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from visa_proxy.errors import RequestError, UpstreamError
from visa_proxy.llm import sse
from visa_proxy.llm.http import MAX_ANSWER_BYTES

Json = dict[str, Any]

_DONE: Final = "[DONE]"
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ChatRequest:
    """The fields of a request that decide what happens to its answer; everything else belongs to the base."""

    data: Json
    model: str | None
    """Without the suffix."""
    suffix: str | None
    """The profile of `model@profile`."""
    stream: bool
    user: str | None

    @classmethod
    def parse(cls, raw: bytes) -> ChatRequest:
        """Raises RequestError naming the field that is missing or of a wrong type."""
        data = json_object(raw)
        model = _typed(data, "model", str, "a string")
        messages = _typed(data, "messages", list, "an array")
        if not messages:
            raise RequestError("'messages' must be a non-empty array of messages", param="messages")
        for i, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise RequestError(f"messages[{i}] must be an object with a 'role'", param=f"messages[{i}]")
        count = _typed(data, "n", int, "an integer")
        if count is not None and count < 1:
            raise RequestError(f"'n' must be at least 1, got {count}", param="n")
        name, suffix = split_model(model or "")
        return cls(
            data=data,
            model=name or None,
            suffix=suffix or None,
            stream=bool(_typed(data, "stream", bool, "a boolean")),
            user=_typed(data, "user", str, "a string"),
        )

    @property
    def skip(self) -> str | None:
        """Why answers to this request are not rewritten: `skipped:<why>`, or None."""
        kind = self.data.get("response_format")
        if isinstance(kind, dict) and kind.get("type", "text") != "text":
            return "skipped:json"
        if self.data.get("logprobs"):
            return "skipped:logprobs"
        modalities = self.data.get("modalities")
        if self.data.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
            return "skipped:audio"
        return None

    @property
    def query(self) -> str:
        """The text of the last user message."""
        for message in reversed(self.data["messages"]):
            if message["role"] == "user":
                return _text(message.get("content"))
        return ""

    def forward(self, raw: bytes, *, default_model: str | None) -> bytes:
        """The body for the base: `raw` itself, unless the model name has to change."""
        name = self.model or default_model
        if name is None:
            raise RequestError("you must provide a model parameter", param="model")
        return raw if name == self.data.get("model") else orjson.dumps({**self.data, "model": name})


def split_model(name: str) -> tuple[str, str]:
    """`model@profile` → (model, profile), `@profile` → ("", profile); ("model", "") without a profile.

    Some model names hold an @ of their own (`@cf/meta/llama`, `claude@20240229`): what follows the last one is a profile only when it
    could be the name of one and is no bare number.
    """
    head, _, tail = name.rpartition("@")
    if "@" not in name:
        return name, ""
    return (head, tail) if not tail or (_PROFILE.fullmatch(tail) and not tail.isdigit()) else (name, "")


@dataclass
class Choice:
    """The text of one choice of a whole answer."""

    index: int
    message: Json
    text: str
    skip: str | None
    """Why this choice is not rewritten: `skipped:<why>`, or None."""

    def replace(self, text: str) -> None:
        self.message["content"] = text


def json_object(raw: bytes) -> Json:
    """Raises RequestError when `raw` is not a JSON object."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the request body is not valid JSON: {error}", param="body", code="invalid_json") from error
    if not isinstance(data, dict):
        raise RequestError("the request body must be a JSON object", param="body", code="invalid_json")
    return data


def body_of(data: Any) -> Json:
    """A whole answer. Raises UpstreamError when it is no chat completion."""
    if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
        raise UpstreamError("the base model's answer is no chat completion", code="upstream_garbled")
    return data


def choices_of(data: Json) -> list[Choice]:
    """The choices of a whole answer. Raises UpstreamError when one has no message."""
    choices = []
    for place, choice in enumerate(data["choices"]):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise UpstreamError("the base model's answer has a choice without a message", code="upstream_garbled")
        content = message.get("content")
        skip = _skip(content, message.get("tool_calls") or message.get("function_call"), message.get("refusal"))
        index = choice.get("index")
        choices.append(
            Choice(index if isinstance(index, int) else place, message, content if isinstance(content, str) else "", skip)
        )
    return choices


def _skip(content: Any, tools: Any, refusal: Any) -> str | None:
    if tools:
        return "skipped:tool-calls"
    if refusal:
        return "skipped:refusal"
    if content is not None and not isinstance(content, str):
        return "skipped:not-text"
    return None if content and content.strip() else "skipped:empty"


@dataclass
class StreamedChoice:
    """One choice, put together from its deltas."""

    text: str = ""
    tools: bool = False
    refusal: bool = False
    finished: bool = False

    @property
    def skip(self) -> str | None:
        return _skip(self.text, self.tools, self.refusal)

    def take(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        content = delta.get("content")
        if isinstance(content, str):
            self.text += content
        self.tools = self.tools or bool(delta.get("tool_calls") or delta.get("function_call"))
        self.refusal = self.refusal or bool(delta.get("refusal"))
        self.finished = self.finished or choice.get("finish_reason") is not None


@dataclass
class Stream:
    """A collected stream: the base's chunks as they came, and the text they add up to."""

    chunks: list[Json] = field(default_factory=list)
    choices: dict[int, StreamedChoice] = field(default_factory=dict)

    @classmethod
    async def collect(cls, events: AsyncIterator[str]) -> Stream:
        """Raises UpstreamError for a stream that is garbled, carries an error, grows beyond 16 MiB, or breaks off."""
        stream = cls()
        size = 0
        async for event in events:
            if event.startswith(_DONE):
                return stream
            size += len(event)
            if size > MAX_ANSWER_BYTES:
                raise UpstreamError(f"the base model's answer exceeds {MAX_ANSWER_BYTES} bytes", code="upstream_too_large")
            stream._take(event)
        # Some servers leave [DONE] out; then every choice must have said that it is finished.
        if not stream.choices or not all(choice.finished for choice in stream.choices.values()):
            raise UpstreamError("the base model's stream broke off", code="upstream_garbled")
        return stream

    def _take(self, event: str) -> None:
        try:
            chunk = orjson.loads(event)
            if chunk.get("error"):
                raise _stream_error(chunk["error"])
            for choice in chunk.get("choices") or ():
                choice["index"] = int(choice["index"])  # some servers send a string
                self.choices.setdefault(choice["index"], StreamedChoice()).take(choice)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamError("the base model's stream is garbled", code="upstream_garbled") from error
        self.chunks.append(chunk)

    def rewritten(self, texts: dict[int, str], visa: Json) -> Iterator[bytes]:
        """The chunks again, with the choices in `texts` saying that instead, and `visa` on the last chunk.

        Everything else (ids, roles, finish reasons, usage, unknown fields) stays as the base sent it.
        """
        pending = dict(texts)
        kept = [chunk for chunk in self.chunks if _rewrite(chunk, texts, pending)]
        for i, chunk in enumerate(kept):
            yield sse.frame({**chunk, "visa": visa} if i == len(kept) - 1 else chunk)


def _rewrite(chunk: Json, texts: dict[int, str], pending: dict[int, str]) -> bool:
    """Change one chunk in place; False when nothing is left in it."""
    choices = chunk.get("choices")
    if not choices:
        return True
    left = []
    for choice in choices:
        index, delta = choice["index"], choice.get("delta") or {}
        if index in texts and delta.get("content"):
            text = pending.pop(index, None)
            if text is not None:
                delta["content"] = text
            else:
                del delta["content"]
                if not delta and choice.get("finish_reason") is None:
                    continue
        left.append(choice)
    chunk["choices"] = left
    return bool(left)


def _stream_error(error: Any) -> UpstreamError:
    detail = error if isinstance(error, dict) else {"message": str(error)}
    code = detail.get("code")
    return UpstreamError(
        str(detail.get("message") or "the base model reported an error"),
        type=detail.get("type") if isinstance(detail.get("type"), str) else None,
        param=detail.get("param") if isinstance(detail.get("param"), str) else None,
        code=None if code is None else str(code),
    )


def _typed(data: Json, name: str, kind: type, what: str) -> Any:
    """The field, None when absent or null. Raises RequestError naming it when it is of another type."""
    value = data.get(name)
    if value is None:
        if name == "messages":
            raise RequestError("you must provide a messages parameter", param=name)
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RequestError(f"'{name}' must be {what}, got {_json_type(value)}", param=name, code="invalid_type")
    return value


def _json_type(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}
    return names[type(value)]


def _text(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""
