"""What is in a store's tables, read past the product's own reader; and rows to put into them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from visa_proxy.store.address import Address
from visa_proxy.store.base import Health, Result
from visa_proxy.store.engine import open_engine
from visa_proxy.store.rows import Exposure
from visa_proxy.store.tables import METADATA


def rows(url: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    engine = open_engine(Address.parse(url), reads=True)
    try:
        with engine.begin() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.select(METADATA.tables[table]))]
    finally:
        engine.dispose()


async def soon(url: str, table: str, count: int, seconds: float = 10.0) -> list[dict[str, Any]]:
    """All rows of a table, when there are `count` of them."""
    deadline = time.monotonic() + seconds
    while len(found := await asyncio.to_thread(rows, url, table)) != count:
        assert time.monotonic() < deadline, f"{len(found)} rows in {table}, not {count}"
        await asyncio.sleep(0.05)
    return found


def exposure(request_id: str = "r1", tenant: str = "acme", **changes: Any) -> Exposure:
    """An exposure of now."""
    given: dict[str, Any] = {"at": time.time(), "profile": "bold", "status": "adapted", "latency_s": 0.25, **changes}
    return Exposure(request_id=request_id, tenant=tenant, **given)


class Counts:
    """A `Watch` that adds up."""

    def __init__(self) -> None:
        self.results: dict[str, int] = {"written": 0, "failed": 0, "rejected": 0}
        self.lost = 0
        self.states: list[bool] = []

    def written(self, result: Result, rows: int) -> None:
        self.results[result] += rows

    def dropped(self, rows: int) -> None:
        self.lost += rows

    def up(self, up: bool) -> None:
        if self.states[-1:] != [up]:
            self.states.append(up)


async def when(health: Callable[[], Health], good: Callable[[Health], bool], seconds: float = 20.0) -> None:
    """Waits until the store's health is as wanted."""
    deadline = time.monotonic() + seconds
    while not good(health()):
        assert time.monotonic() < deadline, health()
        await asyncio.sleep(0.02)
