"""Server-sent events, as OpenAI-compatible servers send them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from visa_proxy.errors import UpstreamError

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
MEDIA_TYPE: Final = b"text/event-stream; charset=utf-8"

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
# Not str.splitlines: it also breaks at U+2028, U+0085 and others, which JSON may hold as they are.
_LINE_END = re.compile(r"\r\n|\n|\r")


def frame(data: Any, *, name: str | None = None) -> bytes:
    """One event carrying JSON; `name`: of events that have one."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


async def events(chunks: AsyncIterator[bytes], *, max_bytes: int) -> AsyncIterator[str]:
    """The `data` of each event, whatever the borders of the chunks; comments and other fields are passed over.

    Raises UpstreamError when an unfinished event exceeds `max_bytes` or the data is not UTF-8.
    """
    buffer = bytearray()
    searched = 0
    async for chunk in chunks:
        buffer += chunk
        while match := _BOUNDARY.search(buffer, searched):
            event = bytes(buffer[: match.start()])
            del buffer[: match.end()]
            searched = 0
            if (data := _data(event)) is not None:
                yield data
        searched = max(0, len(buffer) - 3)  # a boundary has at most four bytes
        if len(buffer) > max_bytes:
            raise UpstreamError("the base model sent an event that is too large", code="upstream_garbled")
    if (data := _data(bytes(buffer))) is not None:
        yield data


def _data(event: bytes) -> str | None:
    try:
        lines = _LINE_END.split(event.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UpstreamError("the base model sent text that is not UTF-8", code="upstream_garbled") from error
    data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
    return "\n".join(data) if data else None
