"""A database that is stopped, hangs or is full: chat goes on as fast as before, and health and metrics say what is the matter."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.base import ANSWER, FakeBase
from tests.fakes.command import children
from tests.fakes.policies import plain
from tests.fakes.postgres import Postgres
from tests.fakes.proxy import Running, Starter
from tests.fakes.stored import rows, soon

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": "Hello?"}]}
SAID: Any = {"request_id": "r1", "score": 1}
PATH = "/v1/visa/feedback"
MANY = plain(limits="{requests_per_minute: 1000000, concurrent: 1000}")


async def spent(proxy: Running, count: int = 60) -> list[float]:
    """Seconds of each of so many chat requests, all of them answered."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        reply = await proxy.post(ASK)
        found.append(time.perf_counter() - begun)
        assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == ANSWER
    return found


async def samples(proxy: Running) -> dict[str, float]:
    lines = (await proxy.get("/metrics")).body.decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


async def told(proxy: Running, status: str, seconds: float = 20.0) -> dict[str, Any]:
    """What /readyz says of the store, when that is `status`."""
    deadline = time.monotonic() + seconds
    while (found := (await proxy.get("/readyz")).json["checks"]["store"])["status"] != status:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return dict(found)


def unhurt(during: list[float], before: list[float]) -> None:
    assert statistics.median(during) < 3 * statistics.median(before) + 0.02
    assert max(during) < max(before) + 0.5


async def test_a_stopped_server(start: Starter, base: FakeBase, server: Postgres) -> None:
    url = server.database("stopped")
    proxy = await start(base.url, store=url, text=MANY)
    before = await spent(proxy)
    await soon(url, "exposures", 60)
    server.stop()
    try:
        unhurt(await spent(proxy), before)
        await told(proxy, "unavailable")
        unhurt(await spent(proxy), before)
        ready = await proxy.get("/readyz")
        assert (ready.status, ready.json["status"]) == (200, "degraded")
        assert "s3cret" not in ready.body.decode() and "refused" in ready.json["checks"]["store"]["problem"]
        found = await samples(proxy)
        assert found["visa_store_up"] == 0 and found["visa_store_queue"] == 120
        assert found['visa_store_writes_total{result="failed"}'] > 0
        refused = await proxy.post(SAID, path=PATH)
        assert (refused.status, refused.json["error"]["code"], refused.headers["Retry-After"]) == (503, "store_unavailable", "1")
    finally:
        server.start()
    await told(proxy, "ready")
    assert (await proxy.post(SAID, path=PATH)).status == 200
    await soon(url, "exposures", 180)
    found = await samples(proxy)
    assert found["visa_store_up"] == 1 and found["visa_store_dropped_total"] == 0


async def test_a_server_that_hangs(start: Starter, base: FakeBase, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.store.outage.STALLED_S", 0.5)
    monkeypatch.setattr("visa_proxy.store.queue.MAX_ROWS", 100)
    monkeypatch.setattr("visa_proxy.store.sql.FEEDBACK_S", 1.0)
    url = server.database("hanging")
    proxy = await start(base.url, store=url, text=MANY)
    before = await spent(proxy)
    await soon(url, "exposures", 60)
    assert server.process is not None
    stopped = [server.process.pid, *(pid for pid, _ in children(server.process.pid))]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        unhurt(await spent(proxy, 120), before)
        assert (await told(proxy, "unavailable"))["problem"] == "does not answer"
        assert (await samples(proxy))["visa_store_up"] == 0
        assert (await proxy.post(SAID, path=PATH)).status == 503
        unhurt(await spent(proxy, 120), before)
        assert (await samples(proxy))["visa_store_dropped_total"] > 0
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    await told(proxy, "ready")
    assert (await proxy.post(SAID, path=PATH)).json["changed"] is False  # it was written after all


async def test_a_file_that_cannot_be_written(start: Starter, base: FakeBase, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "visa.db").mkdir()  # not even root writes into that
    url = f"sqlite:///{folder}/visa.db"
    proxy = await start(base.url, store=url, text=MANY)
    during = await spent(proxy)
    assert (await told(proxy, "unavailable"))["queued"] == 60
    assert (await samples(proxy))["visa_store_up"] == 0
    assert (await proxy.post(SAID, path=PATH)).status == 503
    (folder / "visa.db").rmdir()
    await told(proxy, "ready")
    unhurt(during, await spent(proxy))
    await soon(url, "exposures", 120)
    assert (await proxy.post(SAID, path=PATH)).status == 200 and len(rows(url, "feedback")) == 1
