"""A store in a database: `base.Store` on top of the writing thread."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from visa_proxy.errors import StoreUnavailable
from visa_proxy.store.address import Address
from visa_proxy.store.base import Health, Recordable, Retention, Watch
from visa_proxy.store.database import Database, Unavailable
from visa_proxy.store.rows import Feedback
from visa_proxy.store.writer import Post, Writer

OPEN_S: Final = 3.0
"""How long the start waits for the database; it goes on without."""
FEEDBACK_S: Final = 5.0
CLOSE_S: Final = 5.0
"""To write what is left."""


class SqlStore:
    """For one event loop."""

    def __init__(self, address: Address, retention: Retention, watch: Watch) -> None:
        self._writer = Writer(lambda: Database(address), retention, watch)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def health(self) -> Health:
        """See `base.Store`."""
        return self._writer.health

    async def open(self) -> None:
        """See `base.Store`."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        if not await asyncio.to_thread(self._writer.tried, OPEN_S):
            logging.getLogger("visa_proxy.store").warning("store: the database does not answer yet; serving without it")

    async def close(self) -> None:
        """See `base.Store`."""
        await asyncio.to_thread(self._writer.stop, CLOSE_S)

    def record(self, exposure: Recordable, *, size: int = 0) -> None:
        """See `base.Store`."""
        self._writer.put(exposure, size)

    async def feedback(self, feedback: Feedback) -> bool:
        """See `base.Store`."""
        assert self._loop is not None, "opened before it is used"
        future: asyncio.Future[bool] = self._loop.create_future()
        if not self._writer.post(Post(feedback, lambda found: self._answered(future, found))):
            raise StoreUnavailable("Too much feedback at once; send it again.")
        try:
            async with asyncio.timeout(FEEDBACK_S):
                return await future
        except TimeoutError:
            raise StoreUnavailable("The store did not answer in time; send the feedback again.") from None
        except Unavailable:
            raise StoreUnavailable("The store cannot be written to at the moment; send the feedback again.") from None

    def _answered(self, future: asyncio.Future[bool], found: bool | Unavailable) -> None:
        """On the thread."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, future, found)


def _settle(future: asyncio.Future[bool], found: bool | Unavailable) -> None:
    if future.done():
        return
    if isinstance(found, Unavailable):
        future.set_exception(found)
    else:
        future.set_result(found)
