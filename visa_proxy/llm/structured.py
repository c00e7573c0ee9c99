"""A chat model that fills in a form: one request, one JSON object under a schema, read or refused."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from visa_proxy.errors import InstrumentError, UpstreamError
from visa_proxy.llm.base import Endpoint
from visa_proxy.llm.instrument import failure, garbled, late

T = TypeVar("T")

MAX_REPLY_BYTES: Final = 256 * 1024
"""Of the whole completion: the form, and what servers tell beside it."""
TRIES: Final = 2
REMINDER: Final = "\n\nAnswer with the JSON object alone, complete and without a comment."
"""Added for the second try: at temperature 0 the same request would often get the same answer."""
_FENCED: Final = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Form(Generic[T]):
    """What to answer, and how the answer is read."""

    instrument: str
    """Who asks, for errors: detector | translator."""
    name: str
    """Of the schema: letters, digits, _ and -, at most 64."""
    schema: Mapping[str, Any]
    """JSON schema of an object; within what strict structured outputs take: all keys required, no others."""
    read: Callable[[Mapping[str, Any]], T]
    """Raises ValueError, saying what is wrong in words that quote nothing of the answer."""
    max_tokens: int


def form_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with these keys and no others, filled in in this order."""
    return {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}


async def fill_in(endpoint: Endpoint, form: Form[T], *, model: str, system: str, user: str) -> T:
    """What `model` answers; both tries together take no longer than the endpoint's timeout.

    An answer that cannot be read is asked for once more. Raises InstrumentError for a second one, and at once for a refusal, an answer
    that was cut off, and an endpoint that fails.
    """
    try:
        async with asyncio.timeout(endpoint.timeout_s):
            return await _tries(endpoint, form, model, system, user)
    except TimeoutError as error:
        raise late(form.instrument, endpoint.timeout_s) from error


async def _tries(endpoint: Endpoint, form: Form[T], model: str, system: str, user: str) -> T:
    error = garbled(form.instrument, "nothing")
    for attempt in range(TRIES):
        body = {
            "model": model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user + REMINDER * attempt},
            ],
            "temperature": 0,
            "max_tokens": form.max_tokens,
            "stream": False,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": form.name, "strict": True, "schema": form.schema},
            },
        }
        try:
            reply = await endpoint.json("/chat/completions", body, max_bytes=MAX_REPLY_BYTES)
        except UpstreamError as found:
            if found.code != "upstream_garbled":
                raise failure(form.instrument, found) from found
            error = failure(form.instrument, found)
            continue
        try:
            return form.read(_object(_content(form.instrument, reply)))
        except ValueError as found:
            error = garbled(form.instrument, str(found))
    raise error


def _content(instrument: str, reply: Any) -> str:
    """Raises ValueError for what is no chat completion with text, InstrumentError for a refusal and for one that was cut off."""
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        text, refusal, finish = message["content"], message.get("refusal"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("something that is no chat completion") from error
    if refusal or finish == "content_filter":
        raise InstrumentError(instrument, f"the {instrument} refused to answer")
    if finish == "length":
        raise InstrumentError(instrument, f"the {instrument} did not come to an end")
    if not isinstance(text, str):
        raise ValueError("a completion without text")
    return text


def _object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is, with or without a fence of Markdown around it."""
    fenced = _FENCED.match(text)
    try:
        data = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError:
        # Not as the cause: its message would hold the text.
        raise ValueError("text that is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("JSON that is no object")
    return data


def delimited(texts: Mapping[str, str]) -> str:
    """Texts of others for a prompt, each between tags of its name that no text can close: their mark occurs in none of them.

    The mark comes from the texts, so that the same question is the same prompt.
    """
    joined = "\0".join(texts.values())
    mark = _digest(joined)
    while mark in joined:
        mark = _digest(mark + joined)
    return "\n\n".join(f"<{name} {mark}>\n{text}\n</{name} {mark}>" for name, text in texts.items())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
