"""Exposures between the event loop, which must not wait, and the thread that writes them."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from visa_proxy.store.base import Recordable, Watch
from visa_proxy.store.rows import Kept

logger = logging.getLogger("visa_proxy.store")

MAX_ROWS: Final = 10_000
"""Exposures that wait."""
MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""Of text in them."""
BATCH: Final = 2_000
"""Exposures in one transaction."""
BATCH_CHARACTERS: Final = 4 * 1024 * 1024


class Queue:
    """One thread puts, one other takes."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._rows: deque[tuple[Recordable, int]] = deque()
        self._put_characters = self._taken_characters = 0
        """Two sums that one thread each adds to: their difference is what waits."""
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: Recordable, size: int) -> bool:
        """Takes a microsecond; a full queue drops the row and counts it. True when this is the first that waits."""
        if len(self._rows) >= MAX_ROWS or (size and self._put_characters - self._taken_characters + size > MAX_CHARACTERS):
            self.drop(1)
            return False
        self._put_characters += size
        self._rows.append((row, size))
        return len(self._rows) == 1

    def drop(self, rows: int) -> None:
        """Counts what is not kept."""
        self.dropped += rows
        self._watch.dropped(rows)

    def take(self) -> list[Kept]:
        """The next batch, made into rows; those that cannot be made are counted as rejected."""
        batch: list[Kept] = []
        taken = 0
        while self._rows and len(batch) < BATCH and taken < BATCH_CHARACTERS:
            make, size = self._rows.popleft()
            taken += size
            try:
                batch.append(make())
            except Exception as error:  # noqa: BLE001 - one row is not worth the thread
                logger.warning("store: an exposure could not be made: %s", type(error).__name__)
                self._watch.written("rejected", 1)
                self.drop(1)
        self._taken_characters += taken
        return batch
