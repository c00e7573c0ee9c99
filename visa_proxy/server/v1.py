"""Everything under /v1: who asks, what for, and how errors leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

from visa_proxy.errors import DeadlineExceeded, HeadersTooLarge, MethodNotAllowed, NotFound, RequestTimeout, Stopping, VisaError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.auth import authenticate
from visa_proxy.server.call import Call, ClientGone
from visa_proxy.server.feedback import feedback
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.generate import chat, completions
from visa_proxy.server.guardrail import PATH as GUARDRAIL
from visa_proxy.server.guardrail import guardrail
from visa_proxy.server.models import models
from visa_proxy.server.responses import beside, by_id, responses
from visa_proxy.server.types import Receive, Scope, Send
from visa_proxy.server.visa_api import detect, rewrite, translate

logger = logging.getLogger("visa_proxy.requests")

Handler = Callable[[Call, Gateway, Tenant], Awaitable[None]]

_GENERATING: Final = re.compile(r"/v1/(?:messages|chat/completions/|conversations|threads|batches)")
"""Surfaces with answers of a model that are passed on unchanged, and say so."""

_RESPONSE: Final = "/v1/responses/"

_OPERATORS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""vLLM's own administration, which shares /v1 with what tenants may call."""

_TELL_S: Final = 2.0

_DOUBTFUL: Final = re.compile(r"//|/\.{1,2}(?:/|\Z)|\\|[\x00-\x1f\x7f]")
"""Paths that some servers read as another one: what is reached must not depend on who reads them."""

_ROUTES: dict[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("POST", chat),
    "/v1/completions": ("POST", completions),
    "/v1/responses": ("POST", responses),
    "/v1/responses/compact": ("POST", beside),
    "/v1/responses/input_tokens": ("POST", beside),
    "/v1/models": ("GET", models),
    "/v1/visa/detect": ("POST", detect),
    "/v1/visa/translate": ("POST", translate),
    "/v1/visa/rewrite": ("POST", rewrite),
    "/v1/visa/feedback": ("POST", feedback),
    GUARDRAIL: ("POST", guardrail),
}


class V1:
    """An ASGI app; raw ASGI rather than request objects, because every token of every tenant passes here."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        # A slash at the end makes no other surface, or it would be a way around the rewriting.
        endpoint, method, handler = _route(call, call.path.rstrip("/"))
        if self._gateway.tracing is None:
            await self._serve(call, endpoint, method, handler)
        else:
            with self._gateway.tracing.request(call, endpoint):
                await self._serve(call, endpoint, method, handler)

    async def _serve(self, call: Call, endpoint: str, method: str, handler: Handler) -> None:
        gateway = self._gateway
        started = time.perf_counter()
        gateway.metrics.in_flight.inc()
        try:
            await self._answer(call, method, handler)
        except ClientGone:
            logger.info("%s client closed the connection", call.request_id.decode())
            call.status = call.status or 499
        except VisaError as error:
            if call.exposed is not None:
                call.exposed.fail(error)
            await _tell(call, error)
        except asyncio.CancelledError:
            # The server ends, and the time for requests in flight is over.
            await _tell(call, Stopping("The server is being stopped; send the request again."))
            raise
        except Exception as error:
            # The message of a foreign exception may quote a text; the place it came from is what helps.
            logger.error(
                "%s failed: %s", call.request_id.decode(), type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG)
            )
            await _tell(call, VisaError("The server had an error while processing your request."))
        finally:
            gateway.metrics.in_flight.dec()
            name = call.tenant.name if call.tenant is not None else ""
            seconds = time.perf_counter() - started
            gateway.metrics.request(name, endpoint, call.status or 499, seconds)
            gateway.keep(call, seconds)

    async def _answer(self, call: Call, method: str, handler: Handler) -> None:
        gateway = self._gateway
        call.check_repeats()
        tenant = call.tenant = authenticate(call.headers, gateway.watcher.current)
        call.visa[b"x-visa-tenant"] = tenant.name
        if call.head_bytes > tenant.limits.header_kb * 1024:
            message = f"request line and headers have {call.head_bytes} bytes, more than {tenant.limits.header_kb:g} KiB"
            raise HeadersTooLarge(message, param="headers")
        if method and call.method != method:
            raise MethodNotAllowed(f"{call.path} takes {method}, not {call.method}", code="method_not_allowed")
        with gateway.limiter.enter(tenant):
            await _in_time(call, gateway, tenant, handler)


async def _tell(call: Call, error: VisaError) -> None:
    """Bounded: a client that reads nothing does not hear of its error, but keeps no request open either."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TELL_S):
            await call.fail(error)


async def _in_time(call: Call, gateway: Gateway, tenant: Tenant, handler: Handler) -> None:
    """Receive the body and answer. Raises RequestTimeout and DeadlineExceeded when that takes longer than the tenant's limits."""
    limits = tenant.limits
    call.allow_idle(limits.idle_s)
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    begun = asyncio.get_running_loop().time()
    upload_s = min(limits.upload_s, limits.total_s)
    deadline = gateway.deadlines.call_at(begun + upload_s, expire)
    try:
        await call.body(gateway.max_body(tenant))
        deadline.at = begun + limits.total_s
        await _while_connected(call, handler(call, gateway, tenant))
    except asyncio.CancelledError:
        if not expired or task.uncancel():
            raise
        if not call.received:
            raise RequestTimeout(f"the request body did not arrive within {upload_s:g} s", param="body") from None
        raise DeadlineExceeded(f"the request took longer than {limits.total_s:g} s") from None
    finally:
        deadline.end()


def _route(call: Call, route: str) -> tuple[str, str, Handler]:
    """(what metrics call it, its method or "" for any, who answers)."""
    if route in _ROUTES:
        return route, *_ROUTES[route]
    if route.startswith(_RESPONSE):
        return "/v1/responses/{id}", "", by_id
    return "relay", "", _relay


async def _while_connected(call: Call, work: Awaitable[None]) -> None:
    """Await `work`; cancel it, and with it the request to the base, when the client goes. Raises ClientGone then."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal gone
        if not watcher.cancelled():
            gone = True
            task.cancel()

    watcher = asyncio.get_running_loop().create_task(call.gone())
    watcher.add_done_callback(leave)
    try:
        await work
    except asyncio.CancelledError:
        if not gone or task.uncancel():
            raise
        raise ClientGone from None
    finally:
        watcher.remove_done_callback(leave)
        watcher.cancel()


async def _relay(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """Surfaces that are not rewritten: passed on as they are. Raises NotFound for paths no tenant may reach."""
    route = call.path.rstrip("/")
    if route in _OPERATORS or route.startswith("/v1/visa") or _DOUBTFUL.search(call.path) or not call.raw_path.startswith("/v1/"):
        raise NotFound(f"Unknown request URL: {call.method} {call.path[:200]}", code="unknown_url")
    gateway.reserved.check_relayed(tenant, call.path, await call.body(gateway.max_body(tenant)))
    generating = _GENERATING.match(call.path) and not tenant.default_profile.passthrough
    call.visa[b"x-visa-status"] = "skipped:surface" if generating else "passthrough"
    await gateway.pass_on(call, tenant, call.target)
