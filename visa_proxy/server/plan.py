"""What is to be done with the answer to one request."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from visa_proxy.policy.assign import Assignment
from visa_proxy.policy.resolve import Profile, Tenant
from visa_proxy.server.surfaces.base import Json, Key, Request
from visa_proxy.shield.answer import AT_ONCE, Answer
from visa_proxy.shield.json_fields import schema_of
from visa_proxy.shield.pipeline import Brief, Shield
from visa_proxy.shield.structured import adapt_fields


def _nothing(body: Json) -> None:
    """Most surfaces need no second look at what leaves."""


@dataclass(frozen=True)
class Plan:
    """Who asked, for whom the answer is rewritten, and how."""

    tenant: Tenant
    profile: Profile
    instructions: tuple[str, ...]
    request: Request
    assignment: Assignment | None = None
    """The experiment's arm that chose the profile; None: none did."""
    amend: Callable[[Json], None] = _nothing
    """Changes a whole answer, or an event of a streamed one, before anything is read from it."""
    remember: Callable[[Json], None] = _nothing
    """Takes the whole answer, or the last event of a streamed one, as it left."""
    relayed: Callable[[bytes], bool] | None = None
    """Takes the first pieces of an answer that is relayed as it comes, until it says that it has seen enough."""
    pinned: bool = False
    """It is about something that the tenant's own base stores: no other is asked."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    """For what is rewritten at the same time, over all texts of the answer."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def stream_mode(self) -> str:
        """window | full: JSON comes whole, because a field is not known before it has ended."""
        return "full" if self.request.json_asked else self.tenant.shield.streaming

    def open(self, shield: Shield, key: Key, *, windows: bool) -> Answer:
        """One text of the answer, ready to be fed."""
        brief = Brief(
            query=self.request.surface.query(self.request.data, key),
            target=self.profile.target,
            settings=self.tenant.shield,
            instructions=self.instructions,
            bounds=self.tenant.bounds,
            model=self.tenant.rewriter_model,
            stops=self.request.stops,
        )
        if self.request.json_asked:
            rewrite = functools.partial(adapt_fields, shield, brief, slots=self.slots, schema=schema_of(self.request.data))
            return Answer(shield, brief, self.slots, rewrite=rewrite)
        return Answer(shield, brief, self.slots, windows=windows)
