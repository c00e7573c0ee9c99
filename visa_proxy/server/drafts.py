"""The texts that a gateway's guardrail hook is telling of, by tenant and call.

Of a text that nothing is known of any more (another process was told, or it is too long ago) everything is rewritten again from its
beginning: with a rewriter that says the same twice, what comes out goes on from what the gateway has sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from visa_proxy.server.draft import Draft, Said
from visa_proxy.server.plan import Plan
from visa_proxy.shield.answer import gathered
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all calls together, in this process; beyond it, the call of the tenant that holds most goes that was heard of longest ago."""
IDLE_S: Final = 120.0
"""After so long without a word a call is over."""
OVERHEAD: Final = 4096
"""Bytes that a text takes beside its characters: windows, traces."""
PER_CHARACTER: Final = 6
"""Bytes: what was told, its pieces, and what was said of it."""
Voice = tuple[str, tuple[str, ...]]
"""Profile and instructions."""


@dataclass
class _Told:
    """One call."""

    query: str = ""
    drafts: dict[Voice, list[Draft]] = field(default_factory=dict)
    """In the order of their choices; the same id may come with another profile."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = 0.0
    """When it was last heard of, by the event loop's clock."""
    counted: int = 0
    """Bytes that it was last found to take."""

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        drafts = [draft for listed in self.drafts.values() for draft in listed]
        return OVERHEAD * (1 + len(drafts)) + PER_CHARACTER * (len(self.query) + sum(len(draft.told) for draft in drafts))


class Drafts:
    """All calls that are under way."""

    def __init__(self, ended: Callable[[Plan, Trace], None], *, max_bytes: int = MAX_BYTES, idle_s: float = IDLE_S) -> None:
        """`ended` hears what became of each text, when nothing more of it is expected."""
        self._ended = ended
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._calls: dict[str, OrderedDict[str, _Told]] = {}
        """By tenant; the one heard of longest ago comes first."""
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Future[None]] = set()
        """What is over, until nothing of it runs any more."""

    def ask(self, tenant: str, call: str, query: str) -> None:
        """The question of a call, told before its answer."""
        told = self._told(tenant, call)
        told.query = query
        self._keep(tenant, call, told)

    def query(self, tenant: str, call: str) -> str:
        """The question, "" where none was told."""
        return self._told(tenant, call).query

    async def say(
        self, plan: Plan, shield: Shield, call: str, texts: Sequence[str], ends: Sequence[bool] | None = None
    ) -> list[Said]:
        """What is said of each of a call's texts, in their order. Raises RewriteRefused under `on_failure: error`.

        `ends`: which of them are complete; None: nobody knows.
        """
        tenant, voice = plan.tenant.name, (plan.profile.name, plan.instructions)
        told = self._told(tenant, call)
        self._keep(tenant, call, told)
        async with told.lock:
            known = told.drafts.pop(voice, [])
            drafts = [draft or Draft(plan, shield, place) for place, draft in enumerate(matched(known, texts))]
            self._over(draft for draft in known if draft not in drafts)
            complete: Sequence[bool | None] = [None] * len(texts) if ends is None else ends
            try:
                said = await gathered(d.say(t, e) for d, t, e in zip(drafts, texts, complete, strict=True))
            except BaseException:
                # What has begun cannot be gone on with; whoever asks again begins anew.
                await gathered(draft.stop() for draft in drafts)
                raise
            told.drafts[voice] = drafts
        self._keep(tenant, call, told)
        return said

    def _told(self, tenant: str, call: str) -> _Told:
        calls = self._calls.get(tenant)
        return calls[call] if calls is not None and call in calls else _Told()

    def _keep(self, tenant: str, call: str, told: _Told) -> None:
        """As the one heard of last."""
        loop = asyncio.get_running_loop()
        told.at = loop.time()
        if self._told(tenant, call) is not told and call in self._calls.get(tenant, ()):
            self._forget(tenant, call)  # begun under the same id while this one, forgotten meanwhile, was still being worked on
        calls = self._calls.setdefault(tenant, OrderedDict())
        calls[call] = told
        calls.move_to_end(call)
        size = told.size
        self._bytes += size - told.counted
        told.counted = size
        while self._bytes > self._max_bytes and self._calls:
            largest = max(self._calls, key=lambda name: sum(each.counted for each in self._calls[name].values()))
            self._forget(largest, next(iter(self._calls[largest])))
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s, self._sweep)

    def _sweep(self) -> None:
        """Calls that nothing was heard of for long are over."""
        loop = asyncio.get_running_loop()
        for tenant, calls in list(self._calls.items()):
            for call, told in list(calls.items()):
                if told.at + self._idle_s > loop.time():
                    break
                self._forget(tenant, call)
        self._timer = loop.call_later(self._idle_s, self._sweep) if self._calls else None

    def _forget(self, tenant: str, call: str) -> None:
        calls = self._calls[tenant]
        told = calls.pop(call)
        if not calls:
            del self._calls[tenant]
        self._bytes -= told.counted
        told.counted = 0
        self._over(draft for listed in told.drafts.values() for draft in listed)

    def _over(self, drafts: Iterable[Draft]) -> None:
        for draft in drafts:
            self._ended(draft.plan, draft.trace)
            stopping = asyncio.ensure_future(draft.stop())
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)


def matched(drafts: Sequence[Draft], texts: Sequence[str]) -> list[Draft | None]:
    """For each text the draft that it goes on from, None for one that has just begun.

    Texts come in the order of their choices, but a choice that has no text yet is left out, so one that begins later may stand
    before others.
    """
    left = list(drafts)
    found: list[Draft | None] = []
    for place, text in enumerate(texts):
        fitting = [draft for draft in left if text.startswith(draft.told)]
        same = drafts[place] if place < len(drafts) and drafts[place] in fitting else None
        draft = same or next(iter(fitting), None)
        if draft is not None:
            left.remove(draft)
        found.append(draft)
    return found
