"""The database itself: what the store's thread does to it, and which of its errors mean what."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import sqlalchemy as sa

from visa_proxy.store.address import Address
from visa_proxy.store.engine import open_engine
from visa_proxy.store.migrate import upgrade
from visa_proxy.store.retention import sweep
from visa_proxy.store.rows import Feedback, Kept, Unmeasured
from visa_proxy.store.statements import Row, exposure_row, feedback_values, text_row, write_feedback, write_rows
from visa_proxy.store.tables import EXPOSURES, TEXTS

T = TypeVar("T")
ROW_ERRORS: Final = (sa.exc.DataError, sa.exc.IntegrityError, TypeError, ValueError, OverflowError)
"""Errors that are about a row: the same row would fail again."""


class Unavailable(Exception):
    """The database cannot be reached, is full, locked, read-only or not as it should be. The message is safe to log."""


class Database:
    """One connection, for one thread. Everything raises Unavailable; what was begun is then undone."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._engine = open_engine(address)
        self._migrated = False

    def check(self) -> None:
        """Reaches it, and brings its schema up to date the first time."""
        self._run(lambda connection: connection.execute(sa.select(1)).close())

    def write(self, exposures: Sequence[Kept], retention: Mapping[str, float]) -> int:
        """All of them in one transaction; the value is how many the database would not take for what they hold."""
        try:
            self._run(lambda connection: _write(connection, exposures, retention))
        except ROW_ERRORS:
            if len(exposures) == 1:
                return 1
            return sum(self.write([exposure], retention) for exposure in exposures)
        return 0

    def feedback(self, listed: Sequence[Feedback], retention: Mapping[str, float]) -> list[bool]:
        """All of them in one durable transaction: whether each is new or says something else than before."""

        def work(connection: sa.Connection) -> list[bool]:
            rows = [feedback_values(each, retention.get(each.tenant, 0.0)) for each in listed]
            # In one order for all, as with exposures; of two about the same request the later one stays the later one.
            order = sorted(range(len(rows)), key=lambda i: (rows[i]["tenant"], rows[i]["request_id"], i))
            news = {i: write_feedback(connection, rows[i]) for i in order}
            return [news[i] for i in range(len(rows))]

        return self._run(work)

    def sweep(self, retention: Mapping[str, float]) -> int:
        """Deletes some of the texts whose time is over; how many, 0 when there are none left."""
        now = time.time()
        return self._run(lambda connection: sweep(connection, retention, now))

    def close(self) -> None:
        """It may be used again."""
        self._engine.dispose()

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        # A connection that stood idle may be dead already: a new one is worth one try. All that is written here may be written twice.
        idle = isinstance(self._engine.pool, sa.QueuePool) and self._engine.pool.checkedin() > 0
        try:
            return self._once(work)
        except Unavailable:
            if not idle or self._address.kind == "sqlite":
                raise
            return self._once(work)

    def _once(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            if not self._migrated:
                upgrade(self._engine)
                self._migrated = True
            with self._engine.begin() as connection:
                return work(connection)
        except ROW_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to stop serving
            self._engine.dispose()
            # A file may be put in the place of another while we wait.
            self._migrated = False
            raise Unavailable(f"{_kind(error)}: {self._address.hide(str(getattr(error, 'orig', None) or error))}") from None


def _kind(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (
        getattr(cause, "sqlite_errorname", None) or type(cause).__name__
        if isinstance(cause, sqlite3.Error)
        else type(cause).__name__
    )


def _write(connection: sa.Connection, exposures: Sequence[Kept], retention: Mapping[str, float]) -> None:
    rows: list[Row] = []
    keyed: list[Kept] = []
    for exposure in exposures:
        if not exposure.experiment:
            rows.append(exposure_row(exposure))
        if exposure.experiment or not isinstance(exposure, Unmeasured):
            keyed.append(exposure)
    # Those outside of experiments have no key, and are most; of two others about one request the newer stays.
    tried: dict[tuple[str, str], Row] = {}
    texts: dict[tuple[str, str], Row] = {}
    for exposure in sorted(keyed, key=lambda each: each.at):
        key = (exposure.tenant, exposure.request_id)
        if exposure.experiment:
            tried[key] = exposure_row(exposure)
        text = None if isinstance(exposure, Unmeasured) else text_row(exposure, retention.get(exposure.tenant, 0.0))
        if text is not None:
            texts[key] = text
    # In one order for all: two writers would otherwise wait for each other.
    write_rows(connection, EXPOSURES, rows + [tried[key] for key in sorted(tried)])
    write_rows(connection, TEXTS, [texts[key] for key in sorted(texts)])
