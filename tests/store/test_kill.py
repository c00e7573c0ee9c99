"""Feedback that was acknowledged is there, whatever happens to the proxy: killed at random moments, with posts under way."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter, deque
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.base import FakeBase
from tests.fakes.command import Command, serving_command
from tests.fakes.policies import plain, write
from tests.fakes.stored import rows

POSTS = 2_000
AT_ONCE = 40
KILLS = 3


@pytest.mark.timeout(120)
async def test_two_thousand_posts_with_kills_at_random_moments(url: str, tmp_path: Path, base: FakeBase) -> None:
    chance = random.Random(url)
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", plain(limits="{requests_per_minute: 10000000, concurrent: 1000}"))
    config = f'bases: {{default: {{url: "{base.url}"}}}}\nstore: "{url}"\n'
    waiting = deque(range(POSTS))
    acknowledged: Counter[int] = Counter()
    kills = [chance.randrange(100, POSTS * 3 // 4) for _ in range(KILLS)]
    lost, due = 0, POSTS
    enough = asyncio.Event()

    async def post(command: Command, http: aiohttp.ClientSession) -> None:
        """One after the other, until there are none left or nobody answers; what was not acknowledged is sent again later."""
        nonlocal lost
        while waiting:
            number = waiting.popleft()
            try:
                said = {"request_id": f"req-{number}", "score": score(number), "label": f"l{number}"}
                async with http.post(f"{command.url}/v1/visa/feedback", json=said) as reply:
                    body = await reply.read()
            except aiohttp.ClientError:
                lost += 1
                waiting.append(number)
                return
            assert reply.status == 200, body
            acknowledged[number] += 1
            if sum(acknowledged.values()) >= due:
                enough.set()

    async def kill(command: Command, after: int) -> None:
        nonlocal due
        due = after
        enough.clear()
        await enough.wait()
        await asyncio.sleep(chance.random() * 0.01)
        command.process.send_signal(signal.SIGKILL)

    for after in [*sorted(kills), None]:
        async with serving_command(tmp_path, config) as command, aiohttp.ClientSession(headers=command.http.headers) as http:
            await answering(command)
            killer = asyncio.create_task(kill(command, after)) if after is not None else None
            await asyncio.gather(*(post(command, http) for _ in range(AT_ONCE)))
            if killer is not None:
                await killer
                assert await command.process.wait() == -signal.SIGKILL
                survivors = {row["request_id"] for row in await asyncio.to_thread(rows, url, "feedback")}
                assert {f"req-{number}" for number in acknowledged} <= survivors
    assert lost, "no post was under way when the proxy was killed"
    assert set(acknowledged) == set(range(POSTS))
    found = await asyncio.to_thread(rows, url, "feedback")
    assert Counter(row["request_id"] for row in found) == Counter(f"req-{number}" for number in range(POSTS))
    assert {row["request_id"]: row["score"] for row in found} == {f"req-{n}": score(n) for n in range(POSTS)}


def score(number: int) -> float:
    return number % 201 / 100 - 1


async def answering(command: Command) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if (await command.get("/readyz")).json["status"] == "ok":
                return
        except aiohttp.ClientError:
            pass
        assert command.process.returncode is None and time.monotonic() < deadline, command.log.read_text()
        await asyncio.sleep(0.05)
