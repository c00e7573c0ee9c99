"""Responses that may be asked for again: what clients saw of them, which is not what the base model keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json

MAX_BYTES: Final = 128 * 1024 * 1024
"""Of all tenants together, whatever the number of workers; beyond it, the oldest response of the tenant that holds most goes first."""
OVERHEAD: Final = 1024
"""Bytes that a turn takes beside its texts."""
PARSED: Final = 32
"""A parsed request takes up to this many times the bytes that it came in."""


@dataclass(frozen=True)
class Kept:
    """A response as the client saw it; as bytes, because parsed it would take several times as much."""

    body: bytes
    items: bytes
    """The conversation up to and with this response: a JSON array of input items."""
    before: str | None
    """The response that the first of them goes on from, where the base's own record of it is what the client saw."""
    status: str
    """X-Visa-Status of the answer."""
    profile: str

    def conversation(self) -> list[Json]:
        """`items`, parsed."""
        items: list[Json] = orjson.loads(self.items)
        return items


@dataclass(frozen=True)
class Turn:
    """One response that a tenant has made."""

    kept: Kept | None = None
    """None: only the base has it, and says of it what the client saw or will see."""
    plan: Plan | None = None
    """How it is to be rewritten when the base has finished it; None for one that was finished or relayed."""

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        kept = 0 if self.kept is None else len(self.kept.body) + len(self.kept.items)
        return OVERHEAD + kept + (0 if self.plan is None else PARSED * len(self.plan.request.raw))


class Turns(Protocol):
    """Where turns are kept: `History` in this process, `workers.history.SharedHistory` for several."""

    def get(self, tenant: str, id: str) -> Turn | None:
        """None when there is none, or no longer."""
        ...

    def items(self, tenant: str, ids: Collection[str]) -> dict[str, Json]:
        """Those items of the tenant's conversations that have one of `ids`, each as it was last."""
        ...

    def put(self, tenant: str, id: str, turn: Turn) -> None:
        """Keep `turn`, as the tenant's newest."""
        ...

    def forget(self, tenant: str, id: str) -> None:
        """Nothing happens when there is none."""
        ...


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

    def newest(self, tenant: str) -> list[Turn]:
        """All turns of a tenant, the newest first."""
        turns = self._turns.get(tenant)
        return [] if turns is None else list(reversed(turns.values()))

    def items(self, tenant: str, ids: Collection[str]) -> dict[str, Json]:
        """Those items of the tenant's conversations that have one of `ids`, each as it was last."""
        found: dict[str, Json] = {}
        missing = set(ids)
        for turn in self.newest(tenant):
            if turn.kept is None or not any(f'"{name}"'.encode() in turn.kept.items for name in missing):
                continue
            named = [item for item in turn.kept.conversation() if isinstance(item, dict) and isinstance(item.get("id"), str)]
            found |= {item["id"]: item for item in named if item["id"] in missing}
            missing -= set(found)
            if not missing:
                break
        return found

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
