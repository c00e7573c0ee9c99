"""What one tenant may use: requests a minute, requests at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from visa_proxy.errors import RateLimited
from visa_proxy.policy.resolve import Tenant


class Limits(Protocol):
    """Counts what tenants use: `Limiter` for one process, `workers.limits.SharedLimiter` for several."""

    def enter(self, tenant: Tenant) -> AbstractContextManager[object]:
        """A slot to hold while the request runs. Raises RateLimited with `retry-after`."""
        ...


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
        usage.tokens = refilled(usage.tokens, now - usage.at, capacity)
        usage.at = now
        admit(tenant, usage.running, usage.tokens)
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


def refilled(tokens: float, seconds: float, capacity: float) -> float:
    """What a bucket of `capacity` tokens, filled once a minute, holds `seconds` after it held `tokens`."""
    return min(capacity, tokens + seconds * capacity / 60)


def admit(tenant: Tenant, running: int, tokens: float) -> None:
    """Raises RateLimited when one more request is more than the tenant may have."""
    limits = tenant.limits
    if running >= limits.concurrent:
        raise _limited(f"more than {limits.concurrent} requests at once", 1.0)
    if tokens < 1:
        wait_s = (1 - tokens) * 60 / limits.requests_per_minute
        raise _limited(f"more than {limits.requests_per_minute} requests a minute", wait_s)


def _limited(what: str, wait_s: float) -> RateLimited:
    return RateLimited(f"Rate limit reached for this tenant: {what}.", wait_s=wait_s)
