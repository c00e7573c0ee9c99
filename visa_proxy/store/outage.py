"""Whether the database can be written, and when it is worth another try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from visa_proxy.store.base import Watch
from visa_proxy.store.database import Unavailable

logger = logging.getLogger("visa_proxy.store")

T = TypeVar("T")
BACKOFF_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Between two tries of a database that is down."""
STALLED_S: Final = 5.0
"""A database that takes longer is as good as down. What it was asked goes on: no client can end that."""


class Outage:
    """Kept by the thread that writes; `now` is for any other, too."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._failures = 0
        self._since: float | None = None
        """When what the database is doing now was begun."""
        self.problem = "not reached yet"
        """"" while it can be written."""
        self.retry_at = 0.0
        """By the monotonic clock."""

    @property
    def now(self) -> str:
        """The problem, also where the database does not answer at all."""
        since = self._since
        stalled = since is not None and time.monotonic() - since > STALLED_S
        return self.problem or ("does not answer" if stalled else "")

    @property
    def lasts(self) -> bool:
        """It is too early for another try."""
        return bool(self.problem) and time.monotonic() < self.retry_at

    def attempt(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises Unavailable, having noted it; its first failure is logged, and that it works again."""
        self._since = time.monotonic()
        try:
            done = work()
        except Unavailable as error:
            self._failures += 1
            if self._failures == 1:
                logger.warning("store: cannot write, trying again: %s", error)
            self._begin(str(error), BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1])
            raise
        finally:
            self._since = None
        if self._failures:
            logger.warning("store: writes again")
        self.problem, self._failures = "", 0
        self._watch.up(True)
        return done

    def quietly(self, work: Callable[[], T]) -> T | None:
        """None where it is not available."""
        try:
            return self.attempt(work)
        except Unavailable:
            return None

    def stumble(self, error: Exception) -> None:
        """Something that nobody foresaw: the longest wait."""
        logger.error("store: failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
        self._failures += 1
        self._begin(f"failed: {type(error).__name__}", BACKOFF_S[-1])

    def _begin(self, problem: str, seconds: float) -> None:
        self.problem = problem
        self.retry_at = time.monotonic() + seconds
        self._watch.up(False)
