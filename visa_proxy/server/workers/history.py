"""Kept responses that every worker knows: the parent holds them, so that they outlive the worker that made them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import orjson

from visa_proxy.policy.resolve import PolicySet
from visa_proxy.server.history import History, Kept, Turn
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json
from visa_proxy.server.workers.channel import Channel


@dataclass(frozen=True)
class _Parcel(Turn):
    """A turn as the parent holds it: the plan stays packed."""

    packed: bytes | None = None
    weight: int = 0

    @property
    def size(self) -> int:
        """Bytes, as the worker counted them."""
        return self.weight


class HistoryKeeper:
    """The parent's side."""

    def __init__(self) -> None:
        self._history = History()
        self.handlers: dict[str, Callable[..., Any]] = {
            "history.get": self._get,
            "history.items": self._history.items_as_bytes,
            "history.put": self._put,
            "history.forget": self._history.forget,
        }
        """What workers may ask, see `channel.answer`."""

    def _get(self, tenant: str, id: str) -> tuple[Kept | None, bytes | None] | None:
        turn = self._history.get(tenant, id)
        return (turn.kept, turn.packed) if isinstance(turn, _Parcel) else None

    def _put(self, tenant: str, id: str, kept: Kept | None, packed: bytes | None, size: int) -> None:
        self._history.put(tenant, id, _Parcel(kept, None, packed, size))


class SharedHistory:
    """A worker's side: what `History` offers.

    A plan crosses as what was asked and how it was to be rewritten; the tenant's policy is the one in force when it is taken up again.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.policies: Callable[[], PolicySet] = PolicySet
        """Those in force, once they are loaded."""

    def get(self, tenant: str, id: str) -> Turn | None:
        """None when there is none, or no longer."""
        found = self._channel.ask("history.get", tenant, id)
        if found is None:
            return None
        kept, packed = found
        owner = self.policies().tenants.get(tenant)
        if packed is None or owner is None:
            return Turn(kept) if packed is None else None
        profile, instructions, request, assignment, amend = pickle.loads(packed)  # noqa: S301 - from another worker, through our parent
        return Turn(kept, Plan(owner, profile, instructions, request, assignment, amend=amend))

    def items(self, tenant: str, ids: Collection[str]) -> dict[str, Json]:
        """Those items of the tenant's conversations that have one of `ids`, each as it was last."""
        found: dict[str, bytes] = self._channel.ask("history.items", tenant, list(ids))
        return {name: orjson.loads(item) for name, item in found.items()}

    def put(self, tenant: str, id: str, turn: Turn) -> None:
        """Keep `turn`, as the tenant's newest."""
        plan = turn.plan
        parts = None if plan is None else (plan.profile, plan.instructions, plan.request, plan.assignment, plan.amend)
        packed = None if parts is None else pickle.dumps(parts)
        self._channel.ask("history.put", tenant, id, turn.kept, packed, turn.size)

    def forget(self, tenant: str, id: str) -> None:
        """Nothing happens when there is none."""
        self._channel.ask("history.forget", tenant, id)
