"""What every request needs, built once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from visa_proxy.llm.base import Endpoint, Exchange
from visa_proxy.policy.config import ServerConfig
from visa_proxy.policy.resolve import Tenant
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.call import Call
from visa_proxy.server.components import Components
from visa_proxy.server.deadlines import Deadlines
from visa_proxy.server.drafts import Drafts
from visa_proxy.server.engine import EngineState
from visa_proxy.server.exposures import CUT, NO_TEXTS, Exposed, Texts
from visa_proxy.server.history import Turns
from visa_proxy.server.limits import Limits
from visa_proxy.server.metrics import Metrics
from visa_proxy.server.plan import Plan
from visa_proxy.server.relay import relay, request_headers
from visa_proxy.server.reserved import Reserved
from visa_proxy.server.state import State
from visa_proxy.server.surfaces.base import Key
from visa_proxy.server.tracing.spans import Tracing
from visa_proxy.server.ui.feed import Feed, Shown
from visa_proxy.shield.trace import Trace, usage
from visa_proxy.store.base import Store

logger = logging.getLogger("visa_proxy.requests")


@dataclass
class Gateway:
    """The running proxy."""

    config: ServerConfig
    watcher: PolicyWatcher
    bases: dict[str, Endpoint]
    components: Components
    state: State
    deadlines: Deadlines
    tracing: Tracing | None = None
    """None: nothing is traced."""
    store: Store | None = None
    """None: nothing is kept."""

    def __post_init__(self) -> None:
        # At hand, because every request needs them.
        self.metrics: Metrics = self.state.metrics
        self.limiter: Limits = self.state.limiter
        self.history: Turns = self.state.history
        self.reserved = Reserved(self.config, self.watcher)
        self.feed = Feed()
        self.drafts = Drafts(lambda plan, trace: self.metrics.answer(plan.tenant.name, plan.profile.name, trace))

    @property
    def engine(self) -> EngineState | None:
        """How the rewriter's server is, whichever process of ours keeps it."""
        return self.components.engine_state

    def base(self, tenant: Tenant) -> Endpoint:
        """The tenant's base model; policies naming an unknown one are refused when they load."""
        return self.bases[tenant.base]

    def name_of(self, endpoint: Endpoint) -> str:
        """What the config calls a base."""
        return next(name for name, base in self.bases.items() if base is endpoint)

    @property
    def alone(self) -> bool:
        """There is one tenant: all that is stored at a base is its own."""
        return len(self.watcher.current.tenants) == 1

    def default_model(self, tenant: Tenant) -> str | None:
        """The model of requests that name none."""
        return self.config.bases[tenant.base].model

    def max_body(self, tenant: Tenant) -> int:
        """Bytes."""
        return int(min(tenant.limits.body_mb, self.config.body_mb) * 1024 * 1024)

    async def pass_on(
        self, call: Call, tenant: Tenant, path: str, body: bytes | None = None, begun: Callable[[int], None] | None = None
    ) -> None:
        """The client's request to its base, and the answer, byte for byte. `body`: instead of the client's; `begun`: see `relay`."""
        body = body or await call.body(self.max_body(tenant)) or None

        def make(headers: list[tuple[str, str]]) -> AbstractAsyncContextManager[Exchange]:
            return self.base(tenant).request(call.method, path, headers=headers, body=body)

        headers = request_headers(call)
        asking = make(headers) if self.tracing is None else self.tracing.ask(tenant, call.method, path, headers, make)
        await relay(call, asking, idle_s=tenant.limits.idle_s, begun=begun)

    def relayed(self, call: Call, plan: Plan, why: str) -> None:
        """Notes that the answer is relayed as it comes, and says so to the client."""
        call.visa[b"x-visa-status"] = why
        if plan.request.stream:
            call.visa[b"x-visa-stream-mode"] = "passthrough"
        self._note(call, plan, why)
        self.begun(call, plan, why)
        self.metrics.untouched(plan.tenant.name, plan.profile.name, why)
        if self.feed.watched:
            self.feed.tell(_shown(call, plan), [Trace(status=why)])

    def begun(self, call: Call, plan: Plan, status: str = CUT) -> None:
        """From now on this request is one to keep. `status`: of an answer of which there will be no report."""
        if self.store is not None:
            call.exposed = Exposed(plan, status)

    def report(self, call: Call, plan: Plan, traces: dict[Key, Trace], texts: Texts = NO_TEXTS) -> dict[str, Any]:
        """The `visa` object of an answer; counts its texts, and logs those that fell back. `texts`: to keep, where the policy says so.

        The status is that of the only text; of several, "adapted" when all were, else the first that was not. Several texts are
        listed with what each is called.
        """
        tenant, profile, surface = plan.tenant, plan.profile, plan.request.surface
        for trace in traces.values():
            self.metrics.answer(tenant.name, profile.name, trace)
            self._note(call, plan, trace.status)
        if self.feed.watched:
            self.feed.tell(_shown(call, plan), traces.values())
        statuses = [trace.status for trace in traces.values()] or ["skipped:empty"]
        visa: dict[str, Any] = {"status": next((status for status in statuses if status != "adapted"), "adapted")}
        if call.exposed is not None:
            call.exposed.report(visa["status"], list(traces.values()), texts if tenant.store.text else NO_TEXTS)
        visa |= {"tenant": tenant.name, "profile": profile.name}
        if plan.assignment is not None:
            visa["experiment"] = {"name": plan.assignment.experiment, "arm": plan.assignment.arm}
        if self.tracing is not None:
            self.tracing.report(visa, traces)
        if len(traces) == 1:
            return visa | next(iter(traces.values())).to_dict()
        if any(trace.attempts for trace in traces.values()):
            visa["usage"] = usage(traces.values())
        return visa | {surface.listed: [{**surface.label(key), **trace.to_dict()} for key, trace in sorted(traces.items())]}

    def keep(self, call: Call, latency_s: float) -> None:
        """The request is over: what is to be kept of it goes to the store."""
        exposed = call.exposed
        if exposed is not None and self.store is not None and exposed.end(call.request_id, call.status, latency_s):
            self.store.record(exposed.row, size=exposed.size)

    def _note(self, call: Call, plan: Plan, status: str) -> None:
        if status.startswith("fallback:"):
            request, tenant, profile = call.request_id.decode(), plan.tenant.name, plan.profile.name
            logger.warning("%s tenant=%s profile=%s %s", request, tenant, profile, status)


def _shown(call: Call, plan: Plan) -> Shown:
    experiment = "" if plan.assignment is None else str(plan.assignment)
    return Shown(call.request_id.decode(), plan.tenant.name, plan.profile.name, experiment, plan.request.stream)
