"""An OpenAI-compatible endpoint over HTTP (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable, error_body

Headers = Iterable[tuple[str, str]]

CONNECT_TIMEOUT_S: Final = 5.0
CONNECT_WAITS_S: Final = (0.05, 0.2)
"""Before the second and the third attempt to connect; each is made up to half as long again, so that clients do not come back at once."""
IDLE_S: Final = 4.0
"""Less than the 5 s after which vLLM (uvicorn) closes an idle connection: a request must not meet that on its way."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_RETRY: Final = ("retry-after", "retry-after-ms", "x-should-retry")


def new_session() -> aiohttp.ClientSession:
    """The one session of a process: no cookies, no headers of its own, bodies as they come (compressed ones stay so).

    Deadlines are set per request, so the session has none but for connecting.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S, ttl_dns_cache=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
    )


class Endpoint:
    """One base URL ending in /v1, with its key."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        name: str = "base model",
    ) -> None:
        """`timeout_s`: for a whole answer; on a stream until its first byte, then between two chunks. `name` is how errors call it."""
        self._session = session
        self._url = url.rstrip("/")
        self._authorization = f"Bearer {api_key}" if api_key else None
        self.timeout_s = timeout_s
        self.name = name

    def request(self, method: str, path: str, *, headers: Headers = (), body: Body = None, hurry: bool = False) -> Exchange:
        """`async with endpoint.request("POST", "/chat/completions", …) as answer:`; `path` may carry a query string.

        A connection that is refused, or cannot be made in time, is tried twice more; nothing has been sent by then. Once a byte of
        the request may have left, nothing is repeated. `hurry`: somebody else can be asked, so no second wait for a host that is silent.
        """
        content = body(self) if callable(body) else body
        fields = CIMultiDict(headers)
        if self._authorization is not None:
            fields["Authorization"] = self._authorization
        if content is not None and "Content-Type" not in fields:
            fields["Content-Type"] = "application/json"
        url = URL(self._url + path, encoded=True)
        return Exchange(self, self._session, method, url, fields, content, hurry=hurry)

    async def json(
        self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST", max_bytes: int = MAX_ANSWER_BYTES
    ) -> Any:
        """The parsed answer of one call. Raises UpstreamError when it is not 2xx or not JSON."""
        content = orjson.dumps(body) if body is not None else None
        async with self.request(method, path, body=content) as answer:
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
        detail = _detail(_loads(raw))
        return UpstreamError(
            _text(detail.get("message")) or f"the {self.name} answered with status {status}",
            status=status,
            type=_text(detail.get("type")),
            param=_text(detail.get("param")),
            code=_text(detail.get("code")),
            headers={name: headers[name] for name in _RETRY if name in headers} if headers else None,
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

    @contextlib.contextmanager
    def translate(self, within_s: float) -> Iterator[None]:
        """The one place where aiohttp's exceptions become ours. `within_s`: the wait that a TimeoutError ended."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError as error:
            message = f"the {self.name} did not accept a connection within {CONNECT_TIMEOUT_S:g} s"
            raise UpstreamUnavailable(message, unsent=True) from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamUnavailable(f"the {self.name} cannot be reached", unsent=True) from error
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamTimeout(f"the {self.name} did not answer within {within_s:g} s") from error
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise UpstreamUnavailable(f"the {self.name} cannot be reached") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamError(f"the {self.name} broke off or garbled its answer", code="upstream_garbled") from error


Body = bytes | None | Callable[[Endpoint], bytes | None]
"""What is sent; as a function: what is sent to this endpoint, which may know the model by another name."""


class Exchange:
    """One request and its answer; leaving the context closes the connection unless the answer was read to its end."""

    status: int
    headers: CIMultiDict[str]

    def __init__(
        self,
        endpoint: Endpoint,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None,
        *,
        hurry: bool = False,
    ) -> None:
        self.endpoint = endpoint
        """Who answers."""
        self._session = session
        self._sent = (method, url, headers, body)
        self._hurry = hurry
        self._answer: aiohttp.ClientResponse | None = None
        self._watch: _Watch | None = None

    async def __aenter__(self) -> Exchange:
        timeout_s = self.endpoint.timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        with self.endpoint.translate(timeout_s):
            async with asyncio.timeout_at(self._deadline):
                self._answer = await self._open()
        self.status = self._answer.status
        self.headers = CIMultiDict(self._answer.headers)
        return self

    async def _open(self) -> aiohttp.ClientResponse:
        """The head of the answer; connects anew only while nothing was sent."""
        method, url, headers, body = self._sent
        for wait_s in (*CONNECT_WAITS_S, None):
            try:
                return await self._session.request(
                    method, url, headers=headers, data=body, allow_redirects=False, raise_for_status=False
                )
            except aiohttp.ConnectionTimeoutError:
                if wait_s is None or self._hurry:
                    raise
            except aiohttp.ClientConnectorError as error:
                # A certificate that is not accepted now is not accepted in a moment either.
                if wait_s is None or isinstance(error, aiohttp.ClientSSLError):
                    raise
            await asyncio.sleep(wait_s * random.uniform(1, 1.5))  # noqa: S311 - spreads load, guards nothing
        raise AssertionError("the last attempt returns or raises")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._answer is not None:
            self._answer.release() if kind is None else self._answer.close()

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES, idle_s: float | None = None) -> bytes:
        """The whole body, within the endpoint's timeout; `idle_s` bounds each wait in it. Raises UpstreamError beyond `max_bytes`."""
        assert self._answer is not None
        time = asyncio.get_running_loop().time
        wait_s = self.endpoint.timeout_s if idle_s is None else min(idle_s, self.endpoint.timeout_s)
        pieces = bytearray()
        with self.endpoint.translate(wait_s):
            async with asyncio.timeout_at(min(self._deadline, time() + wait_s)) as clock:
                async for chunk in self._answer.content.iter_any():
                    pieces += chunk
                    if len(pieces) > max_bytes:
                        break
                    if idle_s is not None:
                        clock.reschedule(min(self._deadline, time() + wait_s))
                else:
                    return bytes(pieces)
        self._answer.close()
        raise UpstreamError(f"the {self.endpoint.name}'s answer exceeds {max_bytes} bytes", code="upstream_too_large")

    async def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        """The body as it comes; each wait is bounded by the endpoint's timeout, and by `idle_s` where that is less."""
        assert self._answer is not None
        content = self._answer.content
        wait_s = self.endpoint.timeout_s if idle_s is None else min(idle_s, self.endpoint.timeout_s)
        watch = self._watch = _Watch(content, wait_s)
        with self.endpoint.translate(wait_s):
            while chunk := await watch.wait_for(content.readany()):
                yield chunk


class _Watch:
    """Bounds each of many waits with one timer, which looks now and then how long the present wait lasts.

    A timer per wait would be armed and disarmed for every token of every stream.
    """

    __slots__ = ("_content", "_handle", "_loop", "_since", "_wait_s")

    def __init__(self, content: aiohttp.StreamReader, wait_s: float) -> None:
        self._content = content
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._handle = self._loop.call_later(wait_s, self._look)

    async def wait_for(self, chunk: Awaitable[bytes]) -> bytes:
        """Raises TimeoutError."""
        self._since = self._loop.time()
        try:
            return await chunk
        finally:
            self._since = None

    def _look(self) -> None:
        now = self._loop.time()
        end = (now if self._since is None else self._since) + self._wait_s
        if end <= now:
            self._content.set_exception(TimeoutError())
        else:
            self._handle = self._loop.call_at(end, self._look)

    def stop(self) -> None:
        self._handle.cancel()


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
