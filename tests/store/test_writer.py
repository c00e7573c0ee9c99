"""The writing thread: never in anybody's way, and back at work when the database is."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.fakes.postgres import Postgres
from tests.fakes.stored import Counts, exposure, rows, soon, when
from visa_proxy.errors import StoreUnavailable
from visa_proxy.store import writer
from visa_proxy.store.address import Address
from visa_proxy.store.database import Database
from visa_proxy.store.load import load_store
from visa_proxy.store.rows import Exposure, Feedback
from visa_proxy.store.sql import SqlStore


@contextlib.asynccontextmanager
async def opened(url: str, retention: dict[str, float] | None = None) -> AsyncIterator[tuple[SqlStore, Counts]]:
    counts = Counts()
    store = load_store(url, lambda: retention or {}, counts)
    assert isinstance(store, SqlStore)
    await store.open()
    try:
        yield store, counts
    finally:
        await store.close()


async def test_exposures_are_written_soon_and_the_rest_at_the_end(url: str) -> None:
    async with opened(url) as (store, counts):
        assert store.health.up
        for i in range(700):
            store.record(lambda i=i: exposure(f"r{i}"))  # type: ignore[misc]
        await soon(url, "exposures", 700)
        store.record(lambda: exposure("last"))
    assert len(rows(url, "exposures")) == 701
    assert counts.results == {"written": 701, "failed": 0, "rejected": 0} and counts.lost == 0 and counts.states == [True]


async def test_posts_that_come_together_are_committed_together(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as (store, counts):
        sizes: list[int] = []
        commit = writer.Writer._commit

        def counted(self: writer.Writer, database: Database, posts: Sequence[writer.Post]) -> None:
            sizes.append(len(posts))
            commit(self, database, posts)

        monkeypatch.setattr(writer.Writer, "_commit", counted)
        said = [Feedback("acme", f"r{i % 150}", 1.0, score=i % 150 / 150) for i in range(300)]
        news = await asyncio.gather(*(store.feedback(each) for each in said))
    assert news == [True] * 150 + [False] * 150
    assert sum(sizes) == 300 and len(sizes) < 30
    assert len(rows(url, "feedback")) == 150 and counts.results["written"] == 300


async def test_a_row_that_cannot_be_made_costs_no_other(url: str) -> None:
    def broken() -> Exposure:
        raise KeyError("x")

    async with opened(url) as (store, counts):
        for make in (lambda: exposure("a"), broken, lambda: exposure("b")):
            store.record(make)
    assert len(rows(url, "exposures")) == 2 and counts.results["rejected"] == counts.lost == 1


async def test_a_file_that_another_process_has_locked_fills_the_queue_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visa_proxy.store.queue.MAX_ROWS", 50)
    monkeypatch.setattr("visa_proxy.store.engine.BUSY_S", 0.2)
    url = f"sqlite:///{tmp_path}/visa.db"
    async with opened(url) as (store, counts):
        other = sqlite3.connect(tmp_path / "visa.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store.record(lambda: exposure("first"))
        await when(lambda: store.health, lambda health: not health.up)
        slowest = 0.0
        for i in range(100):
            begun = time.perf_counter()
            store.record(lambda i=i: exposure(f"r{i}"))  # type: ignore[misc]
            slowest = max(slowest, time.perf_counter() - begun)
        assert slowest < 0.15  # none waited for the lock
        # The queue is full, and the first may have left it: whichever work of the thread met the lock before.
        kept = store.health.queued
        assert kept in (50, 51) and counts.lost == store.health.dropped == 101 - kept
        with pytest.raises(StoreUnavailable) as refused:
            await store.feedback(Feedback("acme", "r1", 1.0, score=1.0))
        assert refused.value.headers["retry-after"] == "1"
        other.execute("ROLLBACK")
        other.close()
        await when(lambda: store.health, lambda health: health.up and not health.queued)
        assert await store.feedback(Feedback("acme", "r1", 1.0, score=1.0))
    assert len(rows(url, "exposures")) == kept and counts.states == [True, False, True] and counts.results["failed"] >= 1


async def test_texts_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.store.queue.MAX_CHARACTERS", 1000)
    url = f"sqlite:///{tmp_path}/visa.db"
    async with opened(url, {"acme": 60.0}) as (store, counts):
        for i in range(5):
            store.record(lambda i=i: exposure(f"r{i}", query="x" * 400), size=400)  # type: ignore[misc]
        store.record(lambda: exposure("small"))
        assert counts.lost == 3
        await soon(url, "exposures", 3)
        store.record(lambda: exposure("later", query="x" * 400), size=400)
    assert len(rows(url, "exposures")) == 4 and counts.lost == 3


async def test_a_full_disk_is_an_outage_that_ends(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/visa.db"
    async with opened(url, {"acme": 60.0}) as (store, counts):
        engine = store._writer
        # The limit of the connection, as a full disk would be: SQLite's own error, and nothing of ours.
        full = threading.Event()
        full.set()
        connect = sqlite3.connect

        def limited(path: str, **options: object) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(path, **options)  # type: ignore[call-overload]
            connection.execute("PRAGMA max_page_count = 20" if full.is_set() else "PRAGMA max_page_count = 100000")
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", limited)
            engine._watch.up(True)
            other = connect(tmp_path / "visa.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")  # so that it connects anew
            store.record(lambda: exposure("big", query="x" * 60_000), size=60_000)
            await when(lambda: store.health, lambda health: not health.up)
            other.execute("ROLLBACK")
            other.close()
            for i in range(10):
                store.record(lambda i=i: exposure(f"r{i}", query="x" * 60_000), size=60_000)  # type: ignore[misc]
            await when(lambda: store.health, lambda health: "FULL" in health.problem)
            with pytest.raises(StoreUnavailable):
                await store.feedback(Feedback("acme", "r1", 1.0, score=1.0))
            full.clear()
            await when(lambda: store.health, lambda health: health.up and not health.queued)
            assert await store.feedback(Feedback("acme", "r1", 1.0, score=1.0))
    assert len(rows(url, "exposures")) == 11 and counts.lost == 0


async def test_a_server_that_is_down_at_the_start_is_written_when_it_comes(server: Postgres) -> None:
    url = server.database("late")
    server.stop()
    try:
        async with opened(url) as (store, _):
            assert not store.health.up
            store.record(lambda: exposure("r1"))
            server.start()
            await when(lambda: store.health, lambda health: health.up and not health.queued)
            assert await store.feedback(Feedback("acme", "r1", 1.0, thumbs="up"))
            server.stop()
            with pytest.raises(StoreUnavailable):
                await store.feedback(Feedback("acme", "r1", 1.0, thumbs="down"))
            assert not store.health.up and "refused" in store.health.problem
            server.start()
            await when(lambda: store.health, lambda health: health.up)
    finally:
        if server.process is None:
            server.start()
    assert [row["thumbs"] for row in rows(url, "feedback")] == ["up"] and len(rows(url, "exposures")) == 1


async def test_a_store_that_is_down_to_the_end_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts()
    store = SqlStore(Address.parse("postgresql://u@127.0.0.1:1/x"), dict, counts)
    await store.open()
    store.record(exposure)
    begun = time.monotonic()
    await store.close()
    assert time.monotonic() - begun < 3 and counts.lost == 1 == store.health.dropped


async def test_old_texts_go_while_others_write(url: str) -> None:
    async with opened(url, {"acme": 0.001}) as (store, _):
        for i in range(3):
            store.record(lambda i=i: exposure(f"r{i}", query="q"))  # type: ignore[misc]
        await soon(url, "exposures", 3)
        store._writer._sweep_at = 0.0  # the next round is due
        store.record(lambda: exposure("last"))
        await soon(url, "exposures", 4)
        await soon(url, "texts", 0)
