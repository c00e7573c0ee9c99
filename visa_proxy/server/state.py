"""What requests leave behind: of this process alone, or of all workers of one `visa-proxy serve`."""

from __future__ import annotations

from dataclasses import dataclass

from visa_proxy.server.engine import Owner
from visa_proxy.server.history import History, Turns
from visa_proxy.server.limits import Limiter, Limits
from visa_proxy.server.metrics import Metrics


@dataclass(frozen=True)
class State:
    """Counters, limits, kept responses, and who owns the rewriter."""

    metrics: Metrics
    limiter: Limits
    history: Turns
    owner: Owner | None = None
    """None: this process keeps the rewriter's server itself, where the config says so."""


def of_this_process() -> State:
    """For one process that serves alone."""
    return State(Metrics(), Limiter(), History())
