"""An OpenAI-compatible endpoint over HTTP (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

Headers = Iterable[tuple[str, str]]

CONNECT_TIMEOUT_S: Final = 5.0
IDLE_S: Final = 4.0
"""Less than the 5 s after which vLLM (uvicorn) closes an idle connection: a request must not meet that on its way."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


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

    def request(self, method: str, path: str, *, headers: Headers = (), body: bytes | None = None) -> Exchange:
        """`async with endpoint.request("POST", "/chat/completions", …) as answer:`; `path` may carry a query string."""
        fields = CIMultiDict(headers)
        if self._authorization is not None:
            fields["Authorization"] = self._authorization
        if body is not None and "Content-Type" not in fields:
            fields["Content-Type"] = "application/json"
        url = URL(self._url + path, encoded=True)
        return Exchange(self, self._session, method, url, fields, body)

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

        Takes OpenAI's {"error": {…}}, vLLM's {"error": "…"} and integer codes, FastAPI's {"detail": …} and plain text.
        """
        try:
            data = orjson.loads(raw)
        except orjson.JSONDecodeError:
            data = None
        found = data.get("error", data.get("detail", data)) if isinstance(data, dict) else None
        detail = found if isinstance(found, dict) else {"message": found}
        retry = {
            name: headers[name] for name in ("retry-after", "retry-after-ms", "x-should-retry") if headers and name in headers
        }
        return UpstreamError(
            _text(detail.get("message")) or f"the {self.name} answered with status {status}",
            status=status,
            type=_text(detail.get("type")),
            param=_text(detail.get("param")),
            code=_text(detail.get("code")),
            headers=retry,
        )

    @contextlib.contextmanager
    def translate(self) -> Iterator[None]:
        """The one place where aiohttp's exceptions become ours."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnavailable(f"the {self.name} did not accept a connection within {CONNECT_TIMEOUT_S:g} s") from error
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamTimeout(f"the {self.name} did not answer within {self.timeout_s:g} s") from error
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise UpstreamUnavailable(f"the {self.name} cannot be reached") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamError(f"the {self.name} broke off or garbled its answer", code="upstream_garbled") from error


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
    ) -> None:
        self._endpoint = endpoint
        self._open = session.request(method, url, headers=headers, data=body, allow_redirects=False, raise_for_status=False)
        self._answer: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Exchange:
        self._deadline = asyncio.get_running_loop().time() + self._endpoint.timeout_s
        with self._endpoint.translate():
            async with asyncio.timeout_at(self._deadline):
                self._answer = await self._open
        self.status = self._answer.status
        self.headers = CIMultiDict(self._answer.headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._answer is not None:
            self._answer.release() if kind is None else self._answer.close()

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises UpstreamError beyond `max_bytes`."""
        assert self._answer is not None
        length = self._answer.content_length
        with self._endpoint.translate():
            async with asyncio.timeout_at(self._deadline):
                if length is not None and length <= max_bytes:
                    return await self._answer.read()
                pieces = bytearray()
                async for chunk in self._answer.content.iter_any():
                    pieces += chunk
                    if len(pieces) > max_bytes:
                        break
                else:
                    return bytes(pieces)
        self._answer.close()
        raise UpstreamError(f"the {self._endpoint.name}'s answer exceeds {max_bytes} bytes", code="upstream_too_large")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; each wait is bounded by the endpoint's timeout."""
        assert self._answer is not None
        content = self._answer.content
        while True:
            with self._endpoint.translate():
                async with asyncio.timeout(self._endpoint.timeout_s):
                    chunk = await content.readany()
            if not chunk:
                return
            yield chunk


def _text(value: Any) -> str | None:
    if value is None or value == "" or value == "None":
        return None
    return (
        value if isinstance(value, str) else str(orjson.dumps(value), "utf-8") if isinstance(value, dict | list) else str(value)
    )
