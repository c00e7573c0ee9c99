"""visa-proxy inside vLLM's own server: tenants are answered here, everybody else by vLLM as if we were not there.

    VISA_CONFIG=visa.yaml vllm serve … --middleware visa_proxy.plugins.vllm.VisaMiddleware
    VISA_CONFIG=visa.yaml VLLM_PLUGINS=visa vllm serve …

Both put the same middleware around vLLM's app, outside of its key check, which knows no tenant's key. `inner: true` in visa.yaml means
the app inside, asked in this process with vLLM's own key.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from visa_proxy.errors import ConfigError, VisaError
from visa_proxy.llm.asgi import AsgiEndpoint
from visa_proxy.plugins.settings import VARIABLE, config_path
from visa_proxy.policy.config import Inner, ServerConfig, load_config
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.server.app import Proxy, create_app
from visa_proxy.server.auth import presented
from visa_proxy.server.types import App, Message, Receive, Scope, Send

_OWN: Final = {"/visa/healthz": "/healthz", "/visa/readyz": "/readyz", "/visa/metrics": "/metrics"}
"""Ours beside vLLM's own, and what the proxy calls them."""
_CHECK_S: Final = 10.0


class VisaMiddleware:
    """Pure ASGI. Takes requests under /v1/ with a tenant's key, and /visa/{healthz,readyz,metrics}; passes on all others untouched."""

    def __init__(self, app: App) -> None:
        """Does nothing yet: a server takes an error here for an app without a lifespan, and serves. The lifespan reports what is wrong."""
        self._app = app
        self._proxy: Proxy | None = None
        self._host: Scope = {}
        """What a scope of the server's has that endpoints inside look for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and self._proxy is not None and (path := _taken(scope, self._proxy.policies)):
            raw = (scope.get("raw_path") or b"").removeprefix(scope.get("root_path", "").encode())
            await self._proxy({**scope, "path": path, "raw_path": raw, "root_path": ""}, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """We start once the app inside has, and end before it does; when we cannot start, the server does not."""
        failed: VisaError | None = None
        async with contextlib.AsyncExitStack() as started:

            async def hear() -> Message:
                message: Message = {"type": "lifespan.shutdown"} if failed else await receive()
                if message["type"] == "lifespan.shutdown":
                    await started.aclose()
                return message

            async def tell(message: Message) -> None:
                nonlocal failed
                if message["type"] == "lifespan.startup.complete":
                    try:
                        await started.enter_async_context(self._serving(scope))
                    except VisaError as error:
                        failed = error
                if failed is None:
                    await send(message)

            await self._app(scope, hear, tell)
            if failed is not None:
                await send({"type": "lifespan.startup.failed", "message": f"visa-proxy cannot start: {failed}"})

    @contextlib.asynccontextmanager
    async def _serving(self, scope: Scope) -> AsyncIterator[None]:
        """Raises ConfigError or MissingExtra."""
        self._host = {key: scope[key] for key in ("app", "root_path") if key in scope}
        path = config_path()
        try:
            config = load_config(path)
            await self._check_keys(config)
            proxy = create_app(config, inner=self._inside)
        except ConfigError as error:
            raise ConfigError([f"{VARIABLE}={path}: {problem}" for problem in error.problems]) from error
        ours = logging.getLogger("visa_proxy")
        if ours.getEffectiveLevel() > logging.WARNING:  # one of the packages that vLLM imports sets the root logger to ERROR
            ours.setLevel(logging.WARNING)
        async with proxy.running():
            self._proxy = proxy
            yield

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, **self._host}, receive, send)

    async def _check_keys(self, config: ServerConfig) -> None:
        """Raises ConfigError when vLLM would answer our calls with 401."""
        addresses = {f"bases.{name}": address for name, address in config.bases.items()} | {"rewriter": config.rewriter.endpoint}
        for place, address in addresses.items():
            if not isinstance(address, Inner):
                continue
            vllm = AsgiEndpoint(self._inside, api_key=address.api_key, timeout_s=_CHECK_S, name="vLLM server around the proxy")
            async with vllm.request("GET", "/models") as answer:
                if answer.status == 401:
                    found = "another one" if address.api_key else "none"
                    raise ConfigError([f"{place}.api_key_env: vLLM asks for its API key; found {found}, allowed: one of its own"])


class EndpointPlugin:
    """Of vLLM's entry point group `vllm.endpoint_plugins`; loaded where VLLM_PLUGINS names it."""

    name = "visa"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """`app`: vLLM's FastAPI app. Routes would stand behind its key check, so there is none to attach; see `init_state`."""
        self._app = app

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """After vLLM has put its own middleware around the app, and before it serves: what is put around it now is outside of it."""
        app = self._app
        if VisaMiddleware not in [entry.cls for entry in app.user_middleware]:  # --middleware may name it as well
            app.middleware_stack = VisaMiddleware(app.middleware_stack or app.build_middleware_stack())


def _taken(scope: Scope, policies: PolicySet) -> str | None:
    """The path of a request that is ours, without what the server puts before it; None for one that is not."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if path.startswith("/v1/"):
        return path if policies.tenant_for_key(presented(dict(scope["headers"]))) is not None else None
    return _OWN.get(path)
