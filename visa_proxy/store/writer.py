"""The thread that writes: batches of exposures when there is time, feedback at once and several posts in one commit."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.store.base import Health, Recordable, Retention, Watch
from visa_proxy.store.database import ROW_ERRORS, Database, Unavailable
from visa_proxy.store.outage import Outage
from visa_proxy.store.queue import BATCH, Queue
from visa_proxy.store.rows import Feedback, Kept

logger = logging.getLogger("visa_proxy.store")

MAX_WAITING: Final = 2_000
"""Feedback posts that wait."""
TOGETHER: Final = 500
"""Posts in one commit."""
LINGER_S: Final = 1.0
"""How long an exposure waits for others: a row of many in one transaction costs half of a row in a small one."""
SWEEP_S: Final = 600.0
"""Between two rounds of forgetting; the first comes at once."""

Answer = Callable[[bool | Unavailable], None]


@dataclass(frozen=True)
class Post:
    """Feedback, and who waits for it. `answer` is called on the thread, with whether it is new or why it could not be written."""

    feedback: Feedback
    answer: Answer


class Writer:
    """Started once, stopped once. `put` and `post` are for one other thread, the event loop's."""

    def __init__(self, database: Callable[[], Database], retention: Retention, watch: Watch) -> None:
        """`database` is called on the thread."""
        self._open = database
        self._retention = retention
        self._watch = watch
        self._rows = Queue(watch)
        self._posts: deque[Post] = deque()
        self._batch: list[Kept] = []
        """Taken off the queue, not yet written."""
        self._wake = threading.Event()
        self._tried = threading.Event()
        self._stop_at: float | None = None
        self._linger_until: float | None = None
        self._sweep_at = 0.0
        self._outage = Outage(watch)
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    @property
    def health(self) -> Health:
        """Now."""
        problem = self._outage.now
        return Health(not problem, len(self._rows) + len(self._batch), self._rows.dropped, problem)

    def start(self) -> None:
        self._thread.start()

    def tried(self, seconds: float) -> bool:
        """Waits until the database was asked for the first time; False when that takes longer."""
        return self._tried.wait(seconds)

    def stop(self, seconds: float) -> None:
        """Waits until all is written, or for so long."""
        self._stop_at = time.monotonic() + seconds
        self._wake.set()
        self._thread.join(seconds + 1)
        left = len(self._rows) + len(self._batch)
        if left:
            self._rows.drop(left)
            logger.warning("store: %d exposures could not be written before the end", left)

    def put(self, row: Recordable, size: int) -> None:
        """See `Queue.put`."""
        if self._rows.put(row, size):
            self._wake.set()

    def post(self, post: Post) -> bool:
        """False when too many wait already."""
        if len(self._posts) >= MAX_WAITING or self._stop_at is not None:
            return False
        self._posts.append(post)
        self._wake.set()
        return True

    # The thread.

    def _run(self) -> None:
        database = self._open()
        try:
            self._outage.quietly(database.check)
            self._tried.set()
            while not self._done:
                self._wake.wait(self._pause())
                self._wake.clear()
                try:
                    self._answer(database)
                    self._write(database)
                    self._forget(database)
                except Exception as error:  # noqa: BLE001 - not foreseen, and still no reason to keep nothing from now on
                    self._stumble(error)
        finally:
            self._tried.set()
            database.close()

    def _stumble(self, error: Exception) -> None:
        """Gives up what was being written, and goes on after the longest wait."""
        self._outage.stumble(error)
        self._rows.drop(len(self._batch))
        self._batch = []
        self._refuse(Unavailable(self._outage.problem))

    @property
    def _done(self) -> bool:
        if self._stop_at is None:
            return False
        left = self._rows or self._posts or self._batch
        return not left or bool(self._outage.problem) or time.monotonic() >= self._stop_at

    def _pause(self) -> float:
        """Seconds until something is due, if nothing comes meanwhile."""
        now = time.monotonic()
        due = self._sweep_at
        if self._posts or self._stop_at is not None:
            return 0.0
        if self._outage.problem:
            due = self._outage.retry_at
        elif self._rows or self._batch:
            self._linger_until = self._linger_until or now + LINGER_S
            due = min(due, now if len(self._rows) >= BATCH else self._linger_until)
        return max(0.0, due - now)

    def _answer(self, database: Database) -> None:
        while self._posts:
            if self._outage.lasts:
                self._refuse(Unavailable(self._outage.problem))
                return
            posts = [self._posts.popleft() for _ in range(min(TOGETHER, len(self._posts)))]
            self._commit(database, posts)

    def _commit(self, database: Database, posts: Sequence[Post]) -> None:
        retention = self._retention()
        try:
            news = self._outage.attempt(lambda: database.feedback([post.feedback for post in posts], retention))
        except Unavailable as error:
            self._watch.written("failed", len(posts))
            for post in posts:
                post.answer(error)
        except ROW_ERRORS as error:
            # One of them is at fault: each for itself.
            if len(posts) > 1:
                for post in posts:
                    self._commit(database, [post])
                return
            logger.warning("store: the database takes no such feedback: %s", type(error).__name__)
            self._watch.written("rejected", 1)
            posts[0].answer(Unavailable("the database does not take it"))
        else:
            self._watch.written("written", len(posts))
            for post, new in zip(posts, news, strict=True):
                post.answer(new)

    def _refuse(self, why: Unavailable) -> None:
        while self._posts:
            self._watch.written("failed", 1)
            self._posts.popleft().answer(why)

    def _write(self, database: Database) -> None:
        now = time.monotonic()
        if self._outage.problem:
            if not self._outage.lasts:
                self._outage.quietly(database.check)
            if self._outage.problem:
                return
        lingers = self._linger_until is not None and now < self._linger_until and len(self._rows) < BATCH
        if lingers and self._stop_at is None and not self._batch:
            return
        self._linger_until = None
        # What comes while these are written waits for others again: under load there would always be a few.
        left = len(self._batch) + len(self._rows)
        while left > 0:
            self._batch = self._batch or self._rows.take()
            batch = self._batch
            if not batch:
                return
            refused = self._outage.quietly(functools.partial(database.write, batch, self._retention()))
            if refused is None:
                self._watch.written("failed", len(batch))
                return
            self._watch.written("written", len(batch) - refused)
            if refused:
                self._watch.written("rejected", refused)
                self._rows.drop(refused)
            left -= len(batch)
            self._batch = []
            if self._posts:
                return  # they are in a hurry; one batch was written, so that those who never stop posting keep nobody waiting

    def _forget(self, database: Database) -> None:
        """One batch of texts; between two batches, others have their turn."""
        now = time.monotonic()
        if self._outage.problem or now < self._sweep_at or self._stop_at is not None:
            return
        retention = self._retention()
        found = self._outage.quietly(lambda: database.sweep(retention))
        if found is not None:
            self._sweep_at = now if found else now + SWEEP_S
