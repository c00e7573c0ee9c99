"""Ends what takes too long, with one timer for all requests: arming and disarming one for each would cost more than the rest of the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.1
"""A deadline is noticed at most this much too late."""


class Deadline:
    """Something to be called at a time of the event loop's clock, unless it is ended before."""

    __slots__ = ("_deadlines", "at", "then")

    def __init__(self, deadlines: Deadlines, at: float, then: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self.at = at
        """May be moved."""
        self.then = then

    def end(self) -> None:
        """Nothing will be called."""
        self._deadlines.waiting.discard(self)


class Deadlines:
    """All of a process. A timer runs only while something waits."""

    def __init__(self) -> None:
        self.waiting: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def call_at(self, at: float, then: Callable[[], None]) -> Deadline:
        """A deadline that is running."""
        deadline = Deadline(self, at, then)
        self.waiting.add(deadline)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return deadline

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in [each for each in self.waiting if each.at <= now]:
            deadline.end()
            deadline.then()
        self._timer = loop.call_later(TICK_S, self._tick) if self.waiting else None
