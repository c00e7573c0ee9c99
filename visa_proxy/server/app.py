"""The composition root: a config becomes a running proxy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from visa_proxy.errors import NotFound, RequestError, error_body
from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import ServerConfig
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.call import new_request_id
from visa_proxy.server.components import Components, base_endpoints, check_installed, needs_shield
from visa_proxy.server.deadlines import Deadlines
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.health import health_routes
from visa_proxy.server.history import History
from visa_proxy.server.limits import Limiter
from visa_proxy.server.metrics import Metrics
from visa_proxy.server.types import Receive, Scope, Send
from visa_proxy.server.v1 import V1


class Proxy:
    """The ASGI app. Its lifespan opens what it needs and closes it; between the two `gateway` is set."""

    def __init__(self, config: ServerConfig, *, encoder: Any = None) -> None:
        """Raises ConfigError when the policies cannot be loaded, MissingExtra when they need what is not installed.

        `encoder`: a SentenceEncoder to share.
        """
        self._config = config
        self._encoder = encoder
        self._watcher = PolicyWatcher(config.policies, bases=config.bases, on_change=self._changed)
        if needs_shield(self._watcher.current):
            check_installed(config)
        self.gateway: Gateway | None = None
        self._app = Starlette(lifespan=self._lifespan, exception_handlers={HTTPException: _not_found})
        self._v1: V1 | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._v1 is not None and scope["path"].startswith("/v1/"):
            await self._v1(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _changed(self, policies: Any) -> None:
        if self.gateway is not None:
            self.gateway.components.follow(policies)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(new_session())
            watcher = await stack.enter_async_context(self._watcher)
            components = Components(self._config, session, self._encoder)
            stack.push_async_callback(components.close)
            if needs_shield(watcher.current):
                await components.ensure()
            bases = base_endpoints(self._config, session)
            self.gateway = gateway = Gateway(
                self._config, watcher, bases, components, Metrics(), Limiter(), History(), Deadlines()
            )
            app.router.routes.extend(health_routes(gateway))
            self._v1 = V1(gateway)
            yield


def create_app(config: ServerConfig, *, encoder: Any = None) -> Proxy:
    """The proxy as an ASGI app. Raises ConfigError when the policies cannot be loaded."""
    return Proxy(config, encoder=encoder)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Unknown request URL: {request.method} {request.url.path}"
    refusal = NotFound(message, code="unknown_url") if error.status_code == 404 else RequestError(str(error.detail))
    headers = {"x-request-id": new_request_id(), **(error.headers or {})}
    return JSONResponse(error_body(refusal), status_code=error.status_code, headers=headers)
