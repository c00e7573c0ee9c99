"""Responses that may be asked for again: what clients saw of them, which is not what the base model keeps."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json

MAX_BYTES: Final = 128 * 1024 * 1024
"""Of all tenants together, in this process; beyond it, the oldest response of the tenant that holds most goes first."""


@dataclass(frozen=True)
class Turn:
    """One response."""

    body: bytes | None = None
    """As the client saw it; None: it has to be asked for at the base."""
    items: tuple[Json, ...] | None = None
    """The conversation up to and with this response, as input items; None: the base's own record says the same."""
    plan: Plan | None = None
    """How it is to be rewritten, while the base still works on it; None for one that was relayed as it came."""
    size: int = 0
    """Bytes that it adds to what the turns before it hold."""


class History:
    """Turns by tenant and response id: what one tenant made is not there for another."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._turns: dict[str, OrderedDict[str, Turn]] = {}
        self._bytes: dict[str, int] = {}

    def get(self, tenant: str, id: str) -> Turn | None:
        """None when there is none, or no longer."""
        turns = self._turns.get(tenant)
        return None if turns is None else turns.get(id)

    def item(self, tenant: str, id: str) -> Json | None:
        """The item of that id in what the tenant's turns hold, as the client saw it."""
        turns = self._turns.get(tenant)
        listed = reversed(turns.values()) if turns is not None else ()
        return next((item for turn in listed for item in turn.items or () if item.get("id") == id), None)

    def put(self, tenant: str, id: str, turn: Turn) -> None:
        """Keep `turn`, as the tenant's newest."""
        self.forget(tenant, id)
        self._turns.setdefault(tenant, OrderedDict())[id] = turn
        self._bytes[tenant] = self._bytes.get(tenant, 0) + turn.size
        while sum(self._bytes.values()) > self._max_bytes:
            largest = max(self._bytes, key=lambda name: self._bytes[name])
            self.forget(largest, next(iter(self._turns[largest])))

    def forget(self, tenant: str, id: str) -> None:
        """Nothing happens when there is none."""
        turns = self._turns.get(tenant)
        turn = turns.pop(id, None) if turns is not None else None
        if turn is not None:
            self._bytes[tenant] -= turn.size
            if not turns:
                del self._turns[tenant], self._bytes[tenant]
