"""An OpenAI-compatible endpoint over HTTP (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import TracebackType
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm.base import MAX_ANSWER_BYTES, Body, Endpoint, Exchange, Headers

CONNECT_TIMEOUT_S: Final = 5.0
CONNECT_WAITS_S: Final = (0.05, 0.2)
"""Before the second and the third attempt to connect; each is made up to half as long again, so that clients do not come back at once."""
IDLE_S: Final = 4.0
"""Less than the 5 s after which vLLM (uvicorn) closes an idle connection: a request must not meet that on its way."""


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


class HttpEndpoint(Endpoint):
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
        super().__init__(timeout_s=timeout_s, name=name)
        self._session = session
        self._url = url.rstrip("/")
        self._authorization = f"Bearer {api_key}" if api_key else None

    def request(self, method: str, path: str, *, headers: Headers = (), body: Body = None, hurry: bool = False) -> HttpExchange:
        """As any endpoint.

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
        return HttpExchange(self, self._session, method, url, fields, content, hurry=hurry)

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


class HttpExchange(Exchange):
    """Leaving the context closes the connection unless the answer was read to its end."""

    def __init__(
        self,
        endpoint: HttpEndpoint,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None,
        *,
        hurry: bool = False,
    ) -> None:
        super().__init__(endpoint)
        self._translate = endpoint.translate
        self._session = session
        self._sent = (method, url, headers, body)
        self._hurry = hurry
        self._answer: aiohttp.ClientResponse | None = None
        self._watch: _Watch | None = None

    async def __aenter__(self) -> HttpExchange:
        timeout_s = self.endpoint.timeout_s
        self.deadline = asyncio.get_running_loop().time() + timeout_s
        with self._translate(timeout_s):
            async with asyncio.timeout_at(self.deadline):
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

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        assert self._answer is not None
        length = self._answer.content_length
        if length is None:
            return await super().read(max_bytes)
        if length <= max_bytes:
            with self._translate(self.endpoint.timeout_s):
                async with asyncio.timeout_at(self.deadline):
                    return await self._answer.read()
        self._answer.close()
        raise self.too_large(max_bytes)

    async def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        assert self._answer is not None
        content = self._answer.content
        wait_s = self.endpoint.timeout_s if idle_s is None else min(idle_s, self.endpoint.timeout_s)
        watch = self._watch = _Watch(content, wait_s)
        with self._translate(wait_s):
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
