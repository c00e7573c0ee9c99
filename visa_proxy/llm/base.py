"""How we talk to any model behind OpenAI's API: a request, an answer that comes whole or in pieces, errors in one form.

Implementations: `http` (any server), `asgi` (the server we run in), `litellm` (any provider that LiteLLM knows).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Final

import orjson
from multidict import CIMultiDict

from visa_proxy.errors import UpstreamError, UpstreamTimeout, error_body

Headers = Iterable[tuple[str, str]]

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_RETRY: Final = ("retry-after", "retry-after-ms", "x-should-retry")


class Endpoint(ABC):
    """One server, or what stands for one."""

    def __init__(self, *, timeout_s: float = 600.0, name: str = "base model") -> None:
        """`timeout_s`: for a whole answer; on a stream until its first byte, then between two chunks. `name` is how errors call it."""
        self.timeout_s = timeout_s
        self.name = name

    async def warm_up(self) -> None:  # noqa: B027 - most have nothing to do
        """Does what would make the first request wait. Raises ConfigError when it turns out that there can be none."""

    @abstractmethod
    def request(self, method: str, path: str, *, headers: Headers = (), body: Body = None, hurry: bool = False) -> Exchange:
        """`async with endpoint.request("POST", "/chat/completions", …) as answer:`; `path` may carry a query string.

        `hurry`: somebody else can be asked, so nothing is waited for that may not come.
        """

    async def json(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        method: str = "POST",
        headers: Headers = (),
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Any:
        """The parsed answer of one call. Raises UpstreamError when it is not 2xx or not JSON."""
        content = orjson.dumps(body) if body is not None else None
        async with self.request(method, path, headers=headers, body=content) as answer:
            raw = await answer.read(max_bytes)
            if answer.status >= 400:
                raise self.error(answer.status, raw, answer.headers)
            return self.parse(raw)

    def parse(self, raw: bytes) -> Any:
        """Raises UpstreamError when `raw` is not JSON."""
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise UpstreamError(f"the {self.name} answered with something that is not JSON", code="upstream_garbled") from error

    def error(self, status: int, raw: bytes, headers: CIMultiDict[str] | None = None) -> UpstreamError:
        """The endpoint's error answer in OpenAI's terms: its status, message, type, param; `code` a string or None.

        Takes OpenAI's {"error": {…}}, vLLM's {"error": "…"} and integer codes, FastAPI's {"detail": …} and plain text. The endpoint's
        own retry headers go with it.
        """
        error = self._error(_detail(_loads(raw)), f"answered with status {status}")
        error.status = status
        error.headers |= {name: headers[name] for name in _RETRY if name in headers} if headers else {}
        return error

    def reported(self, event: dict[str, Any]) -> UpstreamError | None:
        """The error that an event of a stream tells of, as `error` gives it; None when it tells of none."""
        if not event.get("error") and event.get("type") != "error":
            return None
        detail = _detail(event)
        if detail.get("type") == "error":  # says that the event is one, not what kind
            detail = {**detail, "type": None}
        error = self._error(detail, "reported an error")
        code = detail.get("code")
        if isinstance(code, int) and 400 <= code < 600:
            error.status = code
        return error

    def _error(self, detail: dict[str, Any], otherwise: str) -> UpstreamError:
        return UpstreamError(
            _text(detail.get("message")) or f"the {self.name} {otherwise}",
            type=_text(detail.get("type")),
            param=_text(detail.get("param")),
            code=_text(detail.get("code")),
        )

    def normalise(self, status: int, raw: bytes) -> bytes | None:
        """An error answer as OpenAI's error JSON; None when `raw` is that already, and may be passed on as it is.

        What else the answer's error object holds, such as Azure's content filter results, stays in it.
        """
        data = _loads(raw)
        if _conforms(data):
            return None
        more = {**_detail(data)} if isinstance(data, dict) and isinstance(data.get("error"), dict) else {}
        return orjson.dumps({"error": more | error_body(self.error(status, raw))["error"]})


class Exchange(ABC):
    """One request and its answer; leaving the context ends what was not read to its end."""

    status: int
    headers: CIMultiDict[str]
    deadline: float
    """Of a whole answer, by the event loop's clock; set, like the two above, when the context is entered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        """Who answers."""

    @abstractmethod
    async def __aenter__(self) -> Exchange:
        """Sends the request and waits for the head of the answer. Raises UpstreamError."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        """The body as it comes; each wait is bounded by the endpoint's timeout, and by `idle_s` where that is less."""

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body, within the endpoint's timeout. Raises UpstreamError beyond `max_bytes`."""
        pieces = bytearray()
        try:
            async with asyncio.timeout_at(self.deadline):
                async for chunk in self.chunks():
                    pieces += chunk
                    if len(pieces) > max_bytes:
                        raise self.too_large(max_bytes)
        except TimeoutError as error:
            raise self.too_late(self.endpoint.timeout_s) from error
        return bytes(pieces)

    def too_large(self, max_bytes: int) -> UpstreamError:
        """The error for an answer of more than `max_bytes`."""
        return UpstreamError(f"the {self.endpoint.name}'s answer exceeds {max_bytes} bytes", code="upstream_too_large")

    def too_late(self, within_s: float) -> UpstreamTimeout:
        """The error for an answer that did not come within `within_s`."""
        return UpstreamTimeout(f"the {self.endpoint.name} did not answer within {within_s:g} s")


Body = bytes | None | Callable[[Endpoint], bytes | None]
"""What is sent; as a function: what is sent to this endpoint, which may know the model by another name."""


def _loads(raw: bytes) -> Any:
    """None where `raw` is not JSON."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _detail(data: Any) -> dict[str, Any]:
    """The error object of an answer, or one made of what stands in its place."""
    found = data.get("error", data.get("detail", data)) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {"message": found}


def _conforms(data: Any) -> bool:
    """Whether `data` is OpenAI's error JSON: message a string, the other three a string or null, and none the word None."""
    error = data.get("error") if isinstance(data, dict) else None
    if not isinstance(error, dict) or not _text(error.get("message")):
        return False
    given = [error.get(key, 0) for key in ("message", "type", "param", "code")]
    return all(value is None or (isinstance(value, str) and value != "None") for value in given)


def _text(value: Any) -> str | None:
    if value is None or value == "" or value == "None":
        return None
    return (
        value if isinstance(value, str) else str(orjson.dumps(value), "utf-8") if isinstance(value, dict | list) else str(value)
    )
