"""Asking a tenant's base model, or the one that stands in for it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from visa_proxy.llm.base import Endpoint, Exchange
from visa_proxy.llm.failover import Attempts, Failover
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.plan import Plan
from visa_proxy.server.relay import request_headers

Asking = AbstractAsyncContextManager[Exchange]


def ask(call: Call, gateway: Gateway, plan: Plan, method: str, path: str, body: bytes | None, *, plain: bool) -> Asking:
    """`async with ask(…) as answer:` the base's answer; `plain`: not compressed.

    `body` is the first base's. A second one that the policy names gets the same, with its own model's name where its config gives one.
    """

    def make(headers: list[tuple[str, str]]) -> Asking:
        return _asking(call, gateway, plan, method, path, body, headers)

    headers = request_headers(call, plain=plain)
    if gateway.tracing is None:
        return make(headers)
    model = plan.request.model or gateway.default_model(plan.tenant)
    return gateway.tracing.ask(plan.tenant, method, path, headers, make, model=model, base_of=gateway.name_of)


def _asking(
    call: Call, gateway: Gateway, plan: Plan, method: str, path: str, body: bytes | None, headers: list[tuple[str, str]]
) -> Asking:
    tenant = plan.tenant
    first = gateway.base(tenant)
    if tenant.failover is None or plan.pinned:
        return first.request(method, path, headers=headers, body=body)
    second = gateway.bases[tenant.failover]
    name = gateway.config.bases[tenant.failover].model

    def body_for(endpoint: Endpoint) -> bytes | None:
        return body if endpoint is first or body is None or name is None else plan.request.named(name)

    attempts = Failover([first, second]).request(method, path, headers=headers, body=body_for)
    return _Noted(call, gateway, plan, attempts)


class _Noted(Asking):
    """Says when another base than the tenant's own was asked."""

    def __init__(self, call: Call, gateway: Gateway, plan: Plan, attempts: Attempts) -> None:
        self._call = call
        self._gateway = gateway
        self._plan = plan
        self._attempts = attempts

    async def __aenter__(self) -> Exchange:
        try:
            return await self._attempts.__aenter__()
        finally:
            if self._attempts.failovers:
                tenant = self._plan.tenant
                self._call.visa[b"x-visa-base"] = str(tenant.failover)
                self._gateway.metrics.failover(tenant.name)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._attempts.__aexit__(kind, error, trace)
