"""Requests and answers passed on as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from multidict import CIMultiDict

from visa_proxy.llm.http import Endpoint, Exchange
from visa_proxy.server.call import Call, HeaderList

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer")
    + (b"transfer-encoding", b"upgrade")
)
"""RFC 9110, section 7.6.1."""
_NOT_FORWARDED: Final = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"api-key", b"cookie", b"expect"}
_NOT_RETURNED: Final = frozenset(name.decode() for name in HOP_BY_HOP) | {"date", "server", "set-cookie", "x-request-id"}
_SMALL: Final = 1024 * 1024


def request_headers(call: Call, *, plain: bool = False) -> list[tuple[str, str]]:
    """The client's headers for the base: without its key, hop-by-hop headers, cookies and ours. `plain`: no compression."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in call.headers.items()
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
    call: Call, endpoint: Endpoint, path: str, body: bytes | None, *, head: Callable[[bytes], None] | None = None
) -> None:
    """The base's answer, byte for byte, whatever its status; streamed unless it is small and of known length.

    `head` is given the first bytes of an answer that is no error.
    """
    headers = request_headers(call, plain=head is not None)
    async with endpoint.request(call.method, path, headers=headers, body=body) as answer:
        look = head if answer.status < 300 else None
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) <= _SMALL:
            content = await answer.read(_SMALL)
            if look is not None:
                look(content)
            await call.start(answer.status, response_headers(answer.headers))
            await call.write(content, more=False)
        else:
            await _stream(call, answer, look)


async def _stream(call: Call, answer: Exchange, look: Callable[[bytes], None] | None) -> None:
    await call.start(answer.status, response_headers(answer.headers))
    async for chunk in answer.chunks():
        if look is not None:
            look(chunk)
            look = None
        await call.write(chunk)
    await call.write(b"", more=False)
