"""Responses that may be asked for again: what clients saw of them, which is not what the base model keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json

MAX_BYTES: Final = 128 * 1024 * 1024
"""Of all tenants together, whatever the number of workers; beyond it, the oldest response of the tenant that holds most goes first."""
OVERHEAD: Final = 1024
"""Bytes that a turn takes beside its texts."""
PER_ITEM: Final = 512
"""Bytes that it takes to find an item of a turn by its id."""
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
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Where in `items` those stand that have an id: first byte, and first one behind."""

    def conversation(self) -> list[Json]:
        """`items`, parsed."""
        items: list[Json] = orjson.loads(self.items)
        return items


def written(items: Iterable[Any]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Items as a JSON array, and the places of those that have an id; of several with one id that of the last."""
    array, places = bytearray(b"["), {}
    for item in items:
        if len(array) > 1:
            array += b","
        start = len(array)
        array += orjson.dumps(item)
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            places[item["id"]] = (start, len(array))
    return bytes(array + b"]"), places


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
        known = self.kept
        kept = 0 if known is None else len(known.body) + len(known.items) + PER_ITEM * len(known.places)
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
        self._holders: dict[str, dict[str, dict[str, None]]] = {}
        """By tenant and item: the ids of the turns that have the item, the newest last."""
        self._bytes: dict[str, int] = {}

    def get(self, tenant: str, id: str) -> Turn | None:
        """None when there is none, or no longer."""
        turns = self._turns.get(tenant)
        return None if turns is None else turns.get(id)

    def items(self, tenant: str, ids: Collection[str]) -> dict[str, Json]:
        """Those items of the tenant's conversations that have one of `ids`, each as it was last."""
        return {name: orjson.loads(item) for name, item in self.items_as_bytes(tenant, ids).items()}

    def items_as_bytes(self, tenant: str, ids: Collection[str]) -> dict[str, bytes]:
        """As `items`, each as JSON."""
        holders = self._holders.get(tenant, {})
        found: dict[str, bytes] = {}
        for name in ids:
            if name in holders:
                kept = self._turns[tenant][next(reversed(holders[name]))].kept
                assert kept is not None, "only what is kept has items"
                found[name] = kept.items[slice(*kept.places[name])]
        return found

    def put(self, tenant: str, id: str, turn: Turn) -> None:
        """Keep `turn`, as the tenant's newest."""
        self.forget(tenant, id)
        self._turns.setdefault(tenant, OrderedDict())[id] = turn
        self._bytes[tenant] = self._bytes.get(tenant, 0) + turn.size
        holders = self._holders.setdefault(tenant, {})
        for item in _items(turn):
            holders.setdefault(item, {})[id] = None
        while sum(self._bytes.values()) > self._max_bytes:
            largest = max(self._bytes, key=lambda name: self._bytes[name])
            self.forget(largest, next(iter(self._turns[largest])))

    def forget(self, tenant: str, id: str) -> None:
        """Nothing happens when there is none."""
        turns = self._turns.get(tenant)
        turn = turns.pop(id, None) if turns is not None else None
        if turn is not None:
            self._bytes[tenant] -= turn.size
            holders = self._holders[tenant]
            for item in _items(turn):
                del holders[item][id]
                if not holders[item]:
                    del holders[item]
            if not turns:
                del self._turns[tenant], self._bytes[tenant], self._holders[tenant]


def _items(turn: Turn) -> Iterable[str]:
    """The ids of what a turn has items of."""
    return () if turn.kept is None else turn.kept.places
