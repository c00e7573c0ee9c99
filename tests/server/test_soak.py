"""Two hundred streams at once, again and again: none fails, none is out of order, and memory stays where it is."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.base import DONE, QUESTION, FakeBase, chunk, delta, event, stream
from tests.fakes.events import parsed, text_of
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.server.components import Instruments

STREAMS = 200
ANSWERS = 1000
WARM_UP = 300
"""So many of the answers come before memory is looked at."""
PATIENCE = aiohttp.ClientTimeout(total=100)
SAID = " Make it an exciting adventure."
STEPS = (
    "Rinse the rice under cold water until it runs clear.",
    "Use two cups of water for each cup of rice.",
    "Bring it to a boil in a heavy pot.",
    "Turn the heat down and cover the pot with a lid.",
    "Take the pot off the heat and leave it covered.",
    "Fluff the rice with a fork before it is served.",
)


def answer(seed: int) -> str:
    """Steps in an order of its own: a window in the wrong place shows."""
    return " ".join(random.Random(seed).choice(STEPS) for _ in range(10))


async def paced(request: web.Request, raw: bytes) -> web.StreamResponse:
    """The base: an answer in about three seconds."""
    words = answer(int(json.loads(raw)["user"])).split(" ")
    pieces = [" ".join(words[at : at + 5]) + (" " if at + 5 < len(words) else "") for at in range(0, len(words), 5)]
    deltas = [delta(0, role="assistant", content=""), *(delta(0, content=piece) for piece in pieces), delta(0, "stop")]
    return await stream(request, *(event(chunk(each)) for each in deltas), DONE, pause_s=0.12)


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def ask(proxy: Running, seed: int) -> Counter[str]:
    body: Any = {"model": "sample", "stream": True, "user": str(seed), "messages": [{"role": "user", "content": QUESTION}]}
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=PATIENCE) as got:
        raw = await got.read()
    assert got.status == 200, raw
    chunks = parsed(raw)
    assert text_of(chunks).replace(SAID, "") == answer(seed)
    return Counter({status: count for status, count in chunks[-1]["visa"]["windows"].items() if status != "total"})


@pytest.mark.timeout(240)
async def test_many_streams_at_once(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> None:
    base.answer, rewriter.rule = paced, lambda text: text + SAID
    shield = "{streaming: window, retries: 0, timeout_s: 30}"
    limits = "{requests_per_minute: 1000000, concurrent: 1000}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield, limits=limits))
    seeds, outcomes, memory = iter(range(ANSWERS)), Counter[str](), list[tuple[int, float]]()
    done = 0

    async def client() -> None:
        nonlocal done
        for seed in seeds:
            outcomes.update(await ask(proxy, seed))
            done += 1
            base.seen.clear()  # what the fakes remember is not the product's
            rewriter.asked.clear()

    async def watch() -> None:
        while done < ANSWERS:
            memory.append((done, resident_mb()))
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for _ in range(STREAMS):
            tasks.create_task(client())
    assert outcomes["adapted"] > sum(outcomes.values()) / 2, outcomes
    settled = [megabytes for count, megabytes in memory if count >= WARM_UP]
    half = len(settled) // 2
    first, last = statistics.median(settled[:half]), statistics.median(settled[half:])
    assert last - first < max(20.0, 0.03 * first), f"from {first:.0f} to {last:.0f} MB"
