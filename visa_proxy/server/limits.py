"""What one tenant may use of this process: requests a minute, requests at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from visa_proxy.errors import RateLimited
from visa_proxy.policy.resolve import Tenant


class _Usage:
    __slots__ = ("at", "running", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.running = 0


class Limiter:
    """A token bucket and a counter per tenant. Limits are read from the policy at each request, so a reload takes effect at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usage: dict[str, _Usage] = {}

    def enter(self, tenant: Tenant) -> Slot:
        """A slot to hold while the request runs. Raises RateLimited with `retry-after`."""
        now = self._clock()
        capacity = float(tenant.limits.requests_per_minute)
        usage = self._usage.get(tenant.name)
        if usage is None:
            usage = self._usage[tenant.name] = _Usage(capacity, now)
        usage.tokens = min(capacity, usage.tokens + (now - usage.at) * capacity / 60)
        usage.at = now
        if usage.running >= tenant.limits.concurrent:
            raise _limited(f"more than {tenant.limits.concurrent} requests at once", 1.0)
        if usage.tokens < 1:
            raise _limited(f"more than {tenant.limits.requests_per_minute} requests a minute", (1 - usage.tokens) * 60 / capacity)
        usage.tokens -= 1
        usage.running += 1
        return Slot(usage)


class Slot:
    """Counts a request as running until it is left."""

    __slots__ = ("_usage",)

    def __init__(self, usage: _Usage) -> None:
        self._usage = usage

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._usage.running -= 1


def _limited(what: str, wait_s: float) -> RateLimited:
    return RateLimited(f"Rate limit reached for this tenant: {what}.", wait_s=wait_s)
