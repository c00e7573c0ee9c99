"""What the pages' scripts ask for: JSON and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from visa_proxy.errors import RequestError, RequestTimeout
from visa_proxy.llm.sse import MEDIA_TYPE
from visa_proxy.policy.spaces import measured_space
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.types import Receive, Scope, Send
from visa_proxy.server.ui.play import Playground
from visa_proxy.server.ui.sketch import Named, Question, kept, read, tenant_of

MAX_BODY: Final = 64 * 1024
UPLOAD_S: Final = 10.0
_HEADERS: Final = {"content-type": MEDIA_TYPE.decode(), "x-accel-buffering": "no"}


class Api:
    """Raises VisaError; the caller renders it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._playground = Playground(gateway)
        self._space = measured_space(gateway.config.detector.spaces)

    async def feed(self, request: Request) -> Response:
        """GET /ui/api/feed: see Viewer.frames."""
        stopping = (request.scope.get("extensions") or {}).get("visa_proxy.stopping")
        if stopping is not None:
            stopping["call"](self._gateway.feed.stop)
        held = contextlib.ExitStack()
        viewer = held.enter_context(self._gateway.feed.viewer())
        return _Held(viewer.frames(), held, headers=_HEADERS)

    async def ask(self, request: Request) -> Response:
        """POST /ui/api/ask: see Playground.ask."""
        return StreamingResponse(self._playground.ask(read(await body(request), Question)), headers=_HEADERS)

    async def profile(self, request: Request) -> Response:
        """POST /ui/api/profile: {yaml, permission, curl, python}."""
        named = read(await body(request), Named)
        tenant = tenant_of(self._gateway.watcher.current, named.tenant)
        url = f"{request.url.scheme}://{request.url.netloc}"
        return JSONResponse(asdict(kept(named, tenant, self._space, url=url, model=self._gateway.default_model(tenant))))


class _Held(StreamingResponse):
    """A stream, and what it holds for as long as it lasts, begun or not."""

    def __init__(self, frames: AsyncIterator[bytes], held: contextlib.ExitStack, headers: dict[str, str]) -> None:
        super().__init__(frames, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def body(request: Request, kind: str = "application/json") -> bytes:
    """Raises RequestError for another content type, PayloadTooLarge, and RequestTimeout for one that does not come."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise RequestError(f"the content type must be {kind}", param="Content-Type", code="invalid_content_type")
    call = Call(request.scope, request.receive, _unsent)
    try:
        async with asyncio.timeout(UPLOAD_S):
            return await call.body(MAX_BODY)
    except TimeoutError:
        raise RequestTimeout(f"the request body did not arrive within {UPLOAD_S:g} s", param="body") from None


async def _unsent(message: object) -> None:
    raise AssertionError("the answer is sent elsewhere")
