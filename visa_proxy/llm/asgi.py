"""An OpenAI-compatible endpoint that is an ASGI app in this process: the server we run in, asked without a socket in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

from multidict import CIMultiDict

from visa_proxy.errors import UpstreamError
from visa_proxy.llm.base import Body, Endpoint, Exchange, Headers

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

MAX_UNREAD: Final = 128 * 1024
"""Bytes of an answer that wait for their reader; beyond them the app waits too, as it does for a client that reads slowly."""
LEAVE_S: Final = 1.0
"""How long the app may take to end once nobody waits for it any more; then it is cancelled."""
_HOST: Final = "127.0.0.1"
_PREFIX: Final = "/v1"


class AsgiEndpoint(Endpoint):
    """The paths under /v1 of an app, with its key."""

    def __init__(self, app: App, *, api_key: str | None = None, timeout_s: float = 600.0, name: str = "base model") -> None:
        super().__init__(timeout_s=timeout_s, name=name)
        self._app = app
        self._authorization = f"Bearer {api_key}" if api_key else None

    def request(self, method: str, path: str, *, headers: Headers = (), body: Body = None, hurry: bool = False) -> AsgiExchange:
        """As any endpoint; there is nobody to connect to, so `hurry` changes nothing.

        An app that raises before it answers gives an UpstreamError of status 500, as a server would answer for it.
        """
        content = body(self) if callable(body) else body
        fields = CIMultiDict(headers)
        if self._authorization is not None:
            fields["Authorization"] = self._authorization
        if content is not None:
            fields["Content-Length"] = str(len(content))
            fields.setdefault("Content-Type", "application/json")
        fields["Host"] = _HOST
        return AsgiExchange(self, self._app, _scope(method, _PREFIX + path, fields), content or b"")


class AsgiExchange(Exchange):
    """The app runs in a task of its own, which ends with the exchange."""

    def __init__(self, endpoint: AsgiEndpoint, app: App, scope: Scope, body: bytes) -> None:
        super().__init__(endpoint)
        self._app = app
        self._scope = scope
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._task: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []
        """Of the body, sent and not read."""
        self._unread = 0
        """Bytes in them."""
        self._started = False
        """The head is there."""
        self._complete = False
        """So is the end of the body."""
        self._ended = False
        """The app will send nothing more."""
        self._raised = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        """The app has said all, or nobody waits for it: what a server tells an app as http.disconnect."""

    async def __aenter__(self) -> AsgiExchange:
        loop, timeout_s = asyncio.get_running_loop(), self.endpoint.timeout_s
        self.deadline = loop.time() + timeout_s
        self._task = loop.create_task(self._run(), name=f"{self._scope['method']} {self._scope['path']} inside")
        try:
            await self._hear(timeout_s)
            if not self._started:
                raise self._no_answer()
        except BaseException:
            await self._leave(self._task)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            await self._leave(self._task)

    async def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        wait_s = self.endpoint.timeout_s if idle_s is None else min(idle_s, self.endpoint.timeout_s)
        while True:
            if self._pieces:
                content = b"".join(self._pieces)
                self._pieces.clear()
                self._unread = 0
                self._room.set()
                yield content
            elif self._complete:
                return
            elif self._ended:
                raise UpstreamError(f"the {self.endpoint.name} broke off its answer", code="upstream_garbled")
            else:
                await self._hear(wait_s)

    async def _hear(self, within_s: float) -> None:
        """Returns when the app has sent something, or ended. Raises UpstreamTimeout."""
        self._news.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError as error:
            raise self.too_late(within_s) from error

    def _no_answer(self) -> UpstreamError:
        """The app ended before it answered."""
        if self._raised:
            return UpstreamError(f"the {self.endpoint.name} failed", status=500)
        return UpstreamError(f"the {self.endpoint.name} did not answer", code="upstream_garbled")

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            self._raised = True
            if self._complete or not self._over.is_set():
                # Only its type: the message of a foreign exception may quote a text.
                debug = logger.isEnabledFor(logging.DEBUG)
                logger.error("the %s failed: %s", self.endpoint.name, type(error).__name__, exc_info=debug)
        finally:
            self._ended = True
            self._news.set()

    async def _receive(self) -> Message:
        if self._request is not None:
            message, self._request = self._request, None
            return message
        # An app that is told too early that its client is gone stops working on the answer.
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._over.is_set():
            # Let others run: an app that never waits would send for ever.
            await asyncio.sleep(0)
            return
        kind = message["type"]
        if kind == "http.response.start" and not self._started:
            self.status = message["status"]
            named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self.headers = CIMultiDict(named)
            self._started = True
            self._news.set()
        elif kind == "http.response.body" and self._started:
            await self._take(bytes(message.get("body", b"")), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"an app may not send {kind} now")

    async def _take(self, content: bytes, *, more: bool) -> None:
        """A part of the body; returns when there is room for another."""
        if content and self._scope["method"] != "HEAD":
            self._pieces.append(content)
            self._unread += len(content)
        if not more:
            self._complete = True
            self._over.set()
        self._news.set()
        if self._unread > MAX_UNREAD and more:
            self._room.clear()
            await self._room.wait()

    async def _leave(self, task: asyncio.Task[None]) -> None:
        """Ends the app: at its own pace for a moment, then at ours."""
        self._over.set()
        self._room.set()
        try:
            await asyncio.wait({task}, timeout=LEAVE_S)
        finally:
            task.cancel()
        if not task.done():
            await asyncio.wait({task}, timeout=LEAVE_S)


def _scope(method: str, target: str, headers: CIMultiDict[str]) -> Scope:
    """What a server would make of the request. `target`: path and query, percent-encoded."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        # Of 2.4 on, streams need not look whether their client is still there.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": (_HOST, 0),
        "server": (_HOST, 80),
        "extensions": {},
    }
