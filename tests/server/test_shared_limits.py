"""Buckets and counters that several processes share: exact, and never held by the dead."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.command import ROOT
from tests.fakes.policies import plain, write
from visa_proxy.errors import RateLimited
from visa_proxy.policy.load import load_policy
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.workers import limits
from visa_proxy.server.workers.limits import SharedLimiter, new_table

TAKES = """
import sys
from pathlib import Path
from visa_proxy.errors import RateLimited
from visa_proxy.policy.load import load_policy
from visa_proxy.server.workers.limits import SharedLimiter
table, worker, policy = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
tenant = load_policy(policy)
limiter = SharedLimiter(table, worker=worker, workers=4, clock=lambda: 1000.0)
print("ready", flush=True)
sys.stdin.readline()
taken = refused = 0
while refused < 50:
    try:
        with limiter.enter(tenant):
            taken += 1
    except RateLimited:
        refused += 1
print(taken)
"""
DIES = """
import os, signal, sys
from pathlib import Path
from visa_proxy.policy.load import load_policy
from visa_proxy.server.workers.limits import SharedLimiter
def clock():  # asked while the table is locked
    print("locked", flush=True)
    signal.pause()
SharedLimiter(int(sys.argv[1]), worker=1, workers=4, clock=clock).enter(load_policy(Path(sys.argv[2])))
"""


def tenant(folder: Path, given: str) -> Tenant:
    return load_policy(write(folder, plain(limits=given)))


def process(code: str, table: int, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(table), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[table],
        cwd=ROOT,
    )


def test_workers_draw_from_one_bucket(tmp_path: Path) -> None:
    now = 1000.0
    table = new_table(2)
    first, second = (SharedLimiter(table, worker=i, workers=2, clock=lambda: now) for i in range(2))
    busy = tenant(tmp_path, "{requests_per_minute: 3}")
    for limiter in (first, second, first):
        with limiter.enter(busy):
            pass
    with pytest.raises(RateLimited, match="3 requests a minute") as caught:
        second.enter(busy)
    assert 0 < int(caught.value.headers["retry-after"]) <= 21
    now += 20.5
    with second.enter(busy):
        pass
    with pytest.raises(RateLimited):
        first.enter(busy)


def test_what_ended_gives_its_slots_back_and_no_others(tmp_path: Path) -> None:
    table = new_table(2)
    first, second = (SharedLimiter(table, worker=i, workers=2) for i in range(2))
    two = tenant(tmp_path, "{concurrent: 2}")
    first.enter(two)
    with second.enter(two):
        with pytest.raises(RateLimited, match="2 requests at once"):
            second.enter(two)
        second.end(0)
        with second.enter(two), pytest.raises(RateLimited, match="2 requests at once"):
            SharedLimiter(table, worker=0, workers=2).enter(two)


def test_processes_at_the_same_time_get_exactly_what_there_is(tmp_path: Path) -> None:
    table, folder = new_table(4), tmp_path / "plain.yaml"
    tenant(tmp_path, "{requests_per_minute: 5000}")
    (tmp_path / "acme.yaml").rename(folder)
    running = [process(TAKES, table, worker, folder) for worker in range(4)]
    for each in running:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    taken = []
    for each in running:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    for each in running:
        output, _ = each.communicate(timeout=60)
        taken.append(int(output))
    assert sum(taken) == 5000


def test_a_process_that_dies_with_the_lock_leaves_it_open(tmp_path: Path) -> None:
    table = new_table(4)
    one = tenant(tmp_path, "{concurrent: 1}")
    dying = process(DIES, table, tmp_path / "acme.yaml")
    assert dying.stdout is not None and dying.stdout.readline() == "locked\n"
    os.kill(dying.pid, signal.SIGKILL)
    dying.communicate(timeout=10)
    with SharedLimiter(table, worker=0, workers=4).enter(one):
        pass


def test_of_too_many_tenants_the_one_that_is_idle_longest_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROWS", 4)
    now = 0.0
    limiter = SharedLimiter(new_table(1), worker=0, workers=1, clock=lambda: now)
    like = tenant(tmp_path, "{requests_per_minute: 2, concurrent: 1}")
    names = [dataclasses.replace(like, name=f"t{i}") for i in range(6)]
    with limiter.enter(names[0]):
        for i in range(1, 5):  # t4 takes the row of t1: t0 asked before, but is running
            now += 1
            with limiter.enter(names[i]):
                pass
        with pytest.raises(RateLimited, match="at once"):
            limiter.enter(names[0])
        for each in (names[2], names[3], names[4]):
            with limiter.enter(each):
                pass
            with pytest.raises(RateLimited, match="2 requests a minute"):
                limiter.enter(each)
        with limiter.enter(names[1]):
            pass
        with limiter.enter(names[5]):
            pass
