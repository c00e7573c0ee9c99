"""Limits that hold over all workers: buckets and counters in memory that the workers share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from visa_proxy.errors import RateLimited
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.limits import admit, refilled

ROWS: Final = 4096
"""Tenants that the table holds. Of more, the one that asked longest ago gives way; after a minute its bucket is full again anyway."""
_DIGEST: Final = 16
_EMPTY: Final = bytes(_DIGEST)


def new_table(workers: int, folder: Path | None = None) -> int:
    """A file descriptor for `workers` processes to share; the file has no name, so that nothing is left of it, however they end.

    `folder`: where it is, preferably in memory; None: where temporary files are.
    """
    with tempfile.TemporaryFile(prefix="visa-proxy-", dir=folder) as file:
        file.truncate(_bytes(workers))
        return os.dup(file.fileno())


class SharedLimiter:
    """`Limiter` for one of several processes.

    A row per tenant: the digest of its name, tokens, when they were counted, and a column per worker with the requests that it has
    running. Rows change under a POSIX lock, which the kernel takes back from a process that is killed; a worker's column is written by
    that worker alone, and emptied by the parent when it has ended.
    """

    def __init__(self, table: int, *, worker: int, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`table`: see `new_table`. `worker`: 0 … `workers` - 1. `clock`: the same for all processes of a machine."""
        self._table = table
        self._worker = worker
        self._workers = workers
        self._clock = clock
        view = memoryview(mmap.mmap(table, _bytes(workers)))
        tokens, at, running = (ROWS * offset for offset in (_DIGEST, _DIGEST + 8, _DIGEST + 16))
        self._digests = view[:tokens]
        self._tokens = view[tokens:at].cast("d")
        self._at = view[at:running].cast("d")
        self._running = view[running:].cast("I")
        self._known: dict[str, tuple[bytes, int]] = {}
        """Digest and row of tenants by name; another tenant may have taken the row meanwhile."""

    def enter(self, tenant: Tenant) -> SharedSlot:
        """A slot to hold while the request runs. Raises RateLimited with `retry-after`."""
        capacity = float(tenant.limits.requests_per_minute)
        with self._locked():
            now = self._clock()
            row = self._row(tenant.name, capacity, now)
            tokens = self._tokens[row] = refilled(self._tokens[row], now - self._at[row], capacity)
            self._at[row] = now
            admit(tenant, self._busy(row), tokens)
            self._tokens[row] = tokens - 1
            cell = row * self._workers + self._worker
            self._running[cell] += 1
        return SharedSlot(self._running, cell)

    def end(self, worker: int) -> None:
        """Give back what `worker` held when it ended."""
        with self._locked():
            for row in range(ROWS):
                self._running[row * self._workers + worker] = 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._table, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._table, fcntl.LOCK_UN)

    def _busy(self, row: int) -> int:
        return sum(self._running[row * self._workers : (row + 1) * self._workers])

    def _row(self, name: str, capacity: float, now: float) -> int:
        """The tenant's row; a new one has a full bucket."""
        known = self._known.get(name)
        if known is not None and self._digest(known[1]) == known[0]:
            return known[1]
        digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST).digest()
        first = int.from_bytes(digest[:8], "big")
        row = next((r for i in range(ROWS) if self._digest(r := (first + i) % ROWS) in (digest, _EMPTY)), None)
        if row is None:
            row = min((r for r in range(ROWS) if not self._busy(r)), key=lambda r: self._at[r], default=None)
        if row is None:
            raise RateLimited(f"Rate limit reached: requests of {ROWS} other tenants are running.")
        if self._digest(row) != digest:
            self._digests[row * _DIGEST : (row + 1) * _DIGEST] = digest
            self._tokens[row], self._at[row] = capacity, now
        self._known[name] = (digest, row)
        return row

    def _digest(self, row: int) -> bytes:
        return bytes(self._digests[row * _DIGEST : (row + 1) * _DIGEST])


class SharedSlot:
    """Counts a request as running until it is left."""

    __slots__ = ("_cell", "_running")

    def __init__(self, running: memoryview[int], cell: int) -> None:
        self._running = running
        self._cell = cell

    def __enter__(self) -> SharedSlot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # No lock: nobody else writes here, and the row stays this tenant's while the cell is not 0.
        self._running[self._cell] -= 1


def _bytes(workers: int) -> int:
    return ROWS * (_DIGEST + 16 + 4 * workers)
