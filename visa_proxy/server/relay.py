"""Requests and answers passed on as they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from multidict import CIMultiDict

from visa_proxy.llm.base import Exchange
from visa_proxy.server.call import JSON, Call, HeaderList

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer")
    + (b"transfer-encoding", b"upgrade")
)
"""RFC 9110, section 7.6.1."""
_NOT_FORWARDED: Final = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"authorization",
    b"api-key",
    b"x-api-key",
    b"cookie",
    b"expect",
}
_NOT_RETURNED: Final = frozenset(name.decode() for name in HOP_BY_HOP) | {"date", "server", "set-cookie", "x-request-id"}
RECODED: Final = frozenset(("content-length", "content-encoding", "content-type", "etag", "digest", "content-digest"))
"""Headers of an answer that no longer hold when its body is changed."""
_SMALL: Final = 1024 * 1024


def request_headers(call: Call, *, plain: bool = False) -> list[tuple[str, str]]:
    """The client's headers for the base: without its key, hop-by-hop headers, cookies and ours. `plain`: no compression."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in call.raw_headers
        if name not in _NOT_FORWARDED and not name.startswith(b"x-visa-") and not (plain and name == b"accept-encoding")
    ]
    if b"x-request-id" not in call.headers:
        headers.append(("X-Request-Id", call.request_id.decode("latin-1")))
    return headers


def response_headers(headers: CIMultiDict[str], *, without: frozenset[str] = frozenset()) -> HeaderList:
    """The base's headers for the client; `without` are lower-case names that no longer hold."""
    return [
        (lower.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if (lower := name.lower()) not in _NOT_RETURNED and lower not in without and not lower.startswith("x-visa-")
    ]


async def relay(
    call: Call,
    asking: AbstractAsyncContextManager[Exchange],
    *,
    idle_s: float,
    head: Callable[[bytes], bool] | None = None,
    tidy: bool = False,
    begun: Callable[[int], None] | None = None,
) -> None:
    """The base's answer, byte for byte, whatever its status; streamed unless it is small and of known length.

    `idle_s`: between two parts of it. `head` is given the first pieces of an answer that is no error, until it returns True.
    `tidy`: an error that does not keep to OpenAI's form is put into it. `begun` is told the status before anything of it leaves.
    """
    async with asking as answer:
        if begun is not None:
            begun(answer.status)
        if tidy and answer.status >= 400 and await tidied(call, answer):
            return
        look = head if answer.status < 300 else None
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) <= _SMALL:
            content = await answer.read(_SMALL)
            if look is not None:
                look(content)
            await call.start(answer.status, response_headers(answer.headers))
            await call.write(content, more=False)
        else:
            await _stream(call, answer, look, idle_s)


async def tidied(call: Call, answer: Exchange) -> bool:
    """Answers with the base's error in OpenAI's form; with the base's own bytes where they have it. False when it is compressed."""
    if "content-encoding" in answer.headers:
        return False
    content = await answer.read(_SMALL)
    better = answer.endpoint.normalise(answer.status, content)
    if better is None:
        await call.start(answer.status, response_headers(answer.headers))
        await call.write(content, more=False)
    else:
        await call.respond(answer.status, better, [JSON, *response_headers(answer.headers, without=RECODED)])
    return True


async def _stream(call: Call, answer: Exchange, look: Callable[[bytes], bool] | None, idle_s: float) -> None:
    await call.start(answer.status, response_headers(answer.headers))
    async for chunk in answer.chunks(idle_s):
        if look is not None and look(chunk):
            look = None
        await call.write(chunk)
    await call.write(b"", more=False)
