"""What the server asks of a store, and what it is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from visa_proxy.store.rows import Feedback, Kept

Recordable = Callable[[], Kept]
"""Makes the row when it is about to be written: off the request path."""
Result = Literal["written", "failed", "rejected"]
"""Of one row: written; failed, and tried again (feedback: refused with 503); rejected by the database for what it holds, and dropped."""
MAX_TEXT: Final = 64 * 1024
"""Characters of each text that are kept."""


Retention = Callable[[], Mapping[str, float]]
"""Seconds that texts stay, by tenant, as the policies in force say; of tenants that are not in it, or have 0, no text is kept."""


@dataclass(frozen=True)
class Health:
    """How a store is now."""

    up: bool
    queued: int
    """Exposures that wait to be written."""
    dropped: int
    """Exposures that were not kept, since the start."""
    problem: str = ""
    """Why it is not up: without address, credentials or content."""


class Watch(Protocol):
    """Hears what becomes of rows; from the event loop and from the store's thread."""

    def written(self, result: Result, rows: int) -> None: ...

    def dropped(self, rows: int) -> None: ...

    def up(self, up: bool) -> None: ...


class Store(Protocol):
    """Where exposures and feedback go."""

    @property
    def health(self) -> Health: ...

    async def open(self) -> None:
        """Starts it; a database that cannot be reached is tried again later, and is no error."""
        ...

    async def close(self) -> None:
        """Writes what is left, for a bounded time."""
        ...

    def record(self, exposure: Recordable, *, size: int = 0) -> None:
        """Never blocks or raises; what does not fit the bounded queue is dropped and counted. `size`: characters of text in it."""
        ...

    async def feedback(self, feedback: Feedback) -> bool:
        """Returns when it is durable: True when it is new or says something else than before, False when it was known.

        Raises StoreUnavailable when it cannot be written; it may have been then, and the same again does no harm.
        """
        ...
