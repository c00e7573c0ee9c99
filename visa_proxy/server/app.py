"""The composition root: a config becomes a running proxy."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from visa_proxy.errors import NotFound, RequestError, VisaError, error_body
from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import ServerConfig
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.policy.spaces import measured_space
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.call import new_request_id
from visa_proxy.server.components import Components, Instruments, check_installed, needs_shield
from visa_proxy.server.deadlines import Deadlines
from visa_proxy.server.endpoints import check_addresses, open_bases
from visa_proxy.server.engine import named
from visa_proxy.server.exposures import kept_seconds
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.guardrail import PATH as GUARDRAIL
from visa_proxy.server.health import health_routes
from visa_proxy.server.state import State, of_this_process
from visa_proxy.server.tracing.settings import wanted
from visa_proxy.server.tracing.spans import Tracing
from visa_proxy.server.types import App, Message, Receive, Scope, Send
from visa_proxy.server.ui.routes import ui_routes
from visa_proxy.server.v1 import V1
from visa_proxy.store.load import check_store, load_store


class Proxy:
    """The ASGI app. Its lifespan opens what it needs and closes it; between the two `gateway` is set."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        instruments: Instruments | None = None,
        state: State | None = None,
        inner: App | None = None,
    ) -> None:
        """Raises ConfigError when the spaces or policies cannot be loaded, MissingExtra when they need what is not installed.

        `instruments`: loaded ones to share. `state`: shared with other processes; None: this one serves alone.
        `inner`: the app of the server we run in, which addresses `inner: true` mean.
        """
        check_addresses(config, inner=inner is not None)
        self._inner = inner
        self._config = config
        self._instruments = instruments
        self._state = state or of_this_process()
        self._traced = wanted(os.environ)
        space = measured_space(config.detector.spaces)
        self._watcher = PolicyWatcher(config.policies, bases=config.bases, space=space, on_change=self._changed)
        if needs_shield(self._watcher.current):
            check_installed(config)
        if config.store is not None:
            check_store(config.store)
        self.gateway: Gateway | None = None
        self.failure: VisaError | None = None
        """Why it could not start."""
        self._app = Starlette(lifespan=self._lifespan, exception_handlers={HTTPException: _not_found})
        self._v1: V1 | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._v1 is not None and scope["path"].startswith(("/v1/", GUARDRAIL)):
            await self._v1(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, functools.partial(self._tell, send))
        else:
            await self._app(scope, receive, send)

    async def _tell(self, send: Send, message: Message) -> None:
        """What is wrong, in one line, where the framework would send how it came to that."""
        if message["type"] == "lifespan.startup.failed" and self.failure is not None:
            message = {**message, "message": str(self.failure)}
        await send(message)

    @property
    def policies(self) -> PolicySet:
        """Those in force."""
        return self._watcher.current

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What the lifespan does, for a host that has a lifespan of its own."""
        return self._lifespan(self._app)

    def _changed(self, policies: PolicySet) -> None:
        if self.gateway is not None:
            self._announce(policies)
            self.gateway.components.follow(policies)

    def _announce(self, policies: PolicySet) -> None:
        """Whoever owns the rewriter starts it when a policy needs it."""
        if self._state.owner is not None and needs_shield(policies):
            self._state.owner.want(named(policies))

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            async with self._open(app):
                yield
        except VisaError as error:
            self.failure = error
            raise

    @contextlib.asynccontextmanager
    async def _open(self, app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(new_session())
            watcher = await stack.enter_async_context(self._watcher)
            models, owner = named(watcher.current), self._state.owner
            components = Components(self._config, session, self._instruments, models=models, inner=self._inner, owner=owner)
            stack.push_async_callback(components.close)
            self._announce(watcher.current)
            if self._inner is not None:
                components.follow(watcher.current)  # in the background: the server we run in does not wait for our models
            elif needs_shield(watcher.current):
                await components.ensure()
            bases = open_bases(self._config.bases, session, inner=self._inner)
            await asyncio.gather(*(base.warm_up() for base in bases.values()))
            tracing = Tracing(self._config.bases, os.environ) if self._traced else None
            if tracing is not None:
                stack.push_async_callback(tracing.close)
            store = None
            if self._config.store is not None:
                retention = functools.partial(_kept, watcher)
                store = load_store(self._config.store, retention, self._state.metrics.watch_store())
                stack.push_async_callback(store.close)
                await store.open()
            self.gateway = gateway = Gateway(self._config, watcher, bases, components, self._state, Deadlines(), tracing, store)
            app.router.routes.extend([*health_routes(gateway), *ui_routes(gateway)])
            self._v1 = V1(gateway)
            self._changed(watcher.current)  # what changed while the models were loaded
            yield


def create_app(
    config: ServerConfig, *, instruments: Instruments | None = None, state: State | None = None, inner: App | None = None
) -> Proxy:
    """The proxy as an ASGI app; see `Proxy`. Raises ConfigError when the policies cannot be loaded."""
    return Proxy(config, instruments=instruments, state=state, inner=inner)


def _kept(watcher: PolicyWatcher) -> dict[str, float]:
    return kept_seconds(watcher.current)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Unknown request URL: {request.method} {request.url.path}"
    refusal = NotFound(message, code="unknown_url") if error.status_code == 404 else RequestError(str(error.detail))
    headers = {"x-request-id": new_request_id(), **(error.headers or {})}
    return JSONResponse(error_body(refusal), status_code=error.status_code, headers=headers)
