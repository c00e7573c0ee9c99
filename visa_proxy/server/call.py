"""One request on its way through: its parts, and the ways to answer it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from visa_proxy.errors import PayloadTooLarge, RequestError, VisaError, error_body
from visa_proxy.llm import sse
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.types import Receive, Scope, Send

if TYPE_CHECKING:
    from visa_proxy.server.exposures import Exposed

HeaderList = list[tuple[bytes, bytes]]

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_SINGLE: Final = frozenset((b"authorization", b"api-key", b"x-api-key"))
JSON: Final = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed its connection; nobody is there to answer."""


class Call:
    """Reads the request, sends the answer; every answer carries X-Request-Id and the X-Visa-* headers known by then."""

    __slots__ = (
        "_body",
        "_events",
        "_receive",
        "_scope",
        "_send",
        "error_frame",
        "exposed",
        "headers",
        "method",
        "path",
        "query",
        "raw_headers",
        "raw_path",
        "request_id",
        "status",
        "tenant",
        "visa"
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        """Percent-decoded."""
        self.raw_path: str = (scope.get("raw_path") or quote(self.path).encode()).decode("latin-1")
        """As the client sent it."""
        self.query: bytes = scope["query_string"]
        self.raw_headers: HeaderList = scope["headers"]
        """As they came, names in lower case."""
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        """For looking up: of a repeated one the last."""
        given = self.headers.get(b"x-request-id", b"")
        self.request_id: bytes = given if _REQUEST_ID.fullmatch(given) else new_request_id().encode()
        self.tenant: Tenant | None = None
        self.visa: dict[bytes, str] = {}
        """X-Visa-* response headers, by lower-case name."""
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self.exposed: Exposed | None = None
        """What is to be kept of it; None: nothing, or nothing yet."""
        self.error_frame: Callable[[VisaError], bytes] = _error_frame
        """How an event stream says that it failed."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body: bytes | None = None
        self._events = False
        """The answer that has begun is a plain event stream."""

    @property
    def target_query(self) -> str:
        """The query string with its question mark, or ""."""
        return f"?{self.query.decode('latin-1')}" if self.query else ""

    @property
    def target(self) -> str:
        """Path and query below /v1, as the client sent them."""
        return self.raw_path.removeprefix("/v1") + self.target_query

    @property
    def head_bytes(self) -> int:
        """Size of the request line and headers."""
        line = len(self.method) + len(self.raw_path) + len(self.query) + 12
        return line + sum(len(name) + len(value) + 4 for name, value in self.raw_headers)

    @property
    def received(self) -> bool:
        """The whole body is here."""
        return self._body is not None

    def check_repeats(self) -> None:
        """Raises RequestError when a header that says who asks, or what for, comes twice with different values."""
        if len(self.headers) == len(self.raw_headers):
            return
        for name, value in self.raw_headers:
            if self.headers[name] != value and (name in _SINGLE or name.startswith(b"x-visa-")):
                title = _title(name)
                raise RequestError(f"the header {title} is there twice with different values", param=title, code="invalid_header")

    def allow_idle(self, seconds: float) -> None:
        """Cut the connection when the client reads nothing for this long, where the server can (ours can); it is gone then."""
        extension = (self._scope.get("extensions") or {}).get("visa_proxy.idle")
        if extension is not None:
            extension["set"](seconds)

    def header(self, name: bytes, *, limit: int = 256) -> str | None:
        """A request header as text. Raises RequestError naming it when it is not UTF-8, has control characters or is too long."""
        raw = self.headers.get(name)
        if raw is None:
            return None
        title = _title(name)
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise RequestError(f"the header {title} is not valid UTF-8", param=title, code="invalid_header") from error
        if len(text) > limit:
            raise RequestError(
                f"the header {title} has {len(text)} characters, at most {limit} are allowed", param=title, code="invalid_header"
            )
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise RequestError(f"the header {title} holds control characters", param=title, code="invalid_header")
        return text or None

    async def body(self, max_bytes: int) -> bytes:
        """The whole body. Raises PayloadTooLarge, where possible before reading it, and ClientGone."""
        if self._body is not None:
            return self._body
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if not message.get("more_body", False):
                self._body = bytes(body)
                return self._body

    async def gone(self) -> None:
        """Returns when the client has closed the connection. Call only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: HeaderList) -> None:
        """Begin the answer."""
        self.status = status
        fields = dict(headers)
        self._events = fields.get(b"content-type", b"").startswith(b"text/event-stream") and b"content-encoding" not in fields
        known = [(name, value.encode("utf-8")) for name, value in self.visa.items()]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*headers, (b"x-request-id", self.request_id), *known]}
        )

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        """A part of the answer's body; `more=False` ends it."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def respond(self, status: int, body: bytes, headers: HeaderList | None = None) -> None:
        """A whole answer with its length."""
        await self.start(status, [*(headers or [JSON]), (b"content-length", b"%d" % len(body))])
        await self.write(body, more=False)

    async def respond_json(self, data: Any, status: int = 200) -> None:
        await self.respond(status, orjson.dumps(data))

    async def fail(self, error: VisaError) -> None:
        """OpenAI's error JSON; on an event stream that has begun, one error frame, then the end.

        Any other answer that has begun is left unfinished: the server then cuts the connection, so that nobody takes it for whole.
        """
        if self.status is not None:
            if self._events:
                # The blank line ends an event that was cut off.
                await self.write(b"\n\n" + self.error_frame(error), more=False)
            return
        extra = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
        await self.respond(error.status, orjson.dumps(error_body(error)), [JSON, *extra])


def new_request_id() -> str:
    """For requests that bring none."""
    return f"req_{os.urandom(12).hex()}"


def _error_frame(error: VisaError) -> bytes:
    return sse.frame(error_body(error))


def _title(name: bytes) -> str:
    """X-Visa-Profile of x-visa-profile."""
    return "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the request body exceeds {max_bytes} bytes", param="body")
