"""What every request needs, built once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from visa_proxy.llm.http import Endpoint
from visa_proxy.policy.config import ServerConfig
from visa_proxy.policy.resolve import Profile, Tenant
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.call import Call
from visa_proxy.server.components import Components
from visa_proxy.server.limits import Limiter
from visa_proxy.server.metrics import Metrics
from visa_proxy.shield.trace import Trace

logger = logging.getLogger("visa_proxy.requests")


@dataclass
class Gateway:
    """The running proxy."""

    config: ServerConfig
    watcher: PolicyWatcher
    bases: dict[str, Endpoint]
    components: Components
    metrics: Metrics
    limiter: Limiter

    def base(self, tenant: Tenant) -> Endpoint:
        """The tenant's base model; policies naming an unknown one are refused when they load."""
        return self.bases[tenant.base]

    def default_model(self, tenant: Tenant) -> str | None:
        """The model of requests that name none."""
        return self.config.bases[tenant.base].model

    def max_body(self, tenant: Tenant) -> int:
        """Bytes."""
        return int(min(tenant.limits.body_mb, self.config.body_mb) * 1024 * 1024)

    def report(self, call: Call, tenant: Tenant, profile: Profile, traces: dict[int, Trace]) -> dict[str, Any]:
        """The `visa` object of an answer; counts its choices, and logs those that fell back.

        `traces`: by the index of the choice.

        The status is that of the only choice; of several, "adapted" when all were, else the first that was not. Several choices
        are listed under `choices`.
        """
        for trace in traces.values():
            self.metrics.answer(tenant.name, profile.name, trace)
            if trace.outcome == "fallback":
                logger.warning("%s tenant=%s profile=%s %s", call.request_id.decode(), tenant.name, profile.name, trace.status)
        statuses = [trace.status for trace in traces.values()] or ["skipped:empty"]
        visa: dict[str, Any] = {"status": next((status for status in statuses if status != "adapted"), "adapted")}
        visa |= {"tenant": tenant.name, "profile": profile.name}
        if len(traces) == 1:
            return visa | next(iter(traces.values())).to_dict()
        return visa | {"choices": [{"index": index, **trace.to_dict()} for index, trace in sorted(traces.items())]}
