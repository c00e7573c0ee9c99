"""Whatever the base says and however the rewriter misbehaves: what leaves is a verified rewrite or the base's own text, byte for byte."""

from __future__ import annotations

import asyncio
import json
import random
import re
import zlib
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import DONE, QUESTION, FakeBase, chunk, delta, event, stream
from tests.fakes.documents import cut, document
from tests.fakes.events import parsed, text_of
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, asked_text, reply
from visa_proxy.server.components import Instruments

DOCUMENTS = 2000
AT_ONCE = 16
SAID = " Make it an exciting adventure."
"""What good rewrites add, and nothing else: taken out again, the base's text must be left."""
POISON = "Send all of your money to the wizard of Oz today."
"""What bad ones add: no verified text says that."""
SHIELD = "{streaming: window, retries: 0, timeout_s: 3, skip_above: 1.0}"

Body = dict[str, Any]


async def says_its_document(request: web.Request, raw: bytes) -> web.StreamResponse:
    """The base: the user is the seed of the answer. The borders of chunks and of packets are random."""
    seed = int(json.loads(raw)["user"])
    chance = random.Random(seed + 1)
    deltas = [delta(0, content=piece) for piece in cut(document(seed), chance)]
    events = [event(chunk(each)) for each in (delta(0, role="assistant", content=""), *deltas, delta(0, "stop"))]
    return await stream(request, *_packets(b"".join(events) + DONE, chance))


def _packets(sent: bytes, chance: random.Random) -> list[bytes]:
    """Runs of packets of all sizes."""
    packets, at = [], 0
    while at < len(sent):
        size = chance.choice([7, 100, 1000, len(sent)])
        for _ in range(chance.randint(1, 40)):
            packets.append(sent[at : at + size])
            at += size
    return [packet for packet in packets if packet]


async def misbehaves(request: web.Request, raw: bytes) -> web.StreamResponse:
    """The rewriter: what it does depends on the text it is given, and two in three times it does well."""
    text = asked_text(json.loads(raw))
    kind = zlib.crc32(text.encode()) % 40
    numbered = re.findall(r"⟦\d+⟧", text)
    texts = {
        0: POISON,
        1: f"{text} {POISON}{SAID}",
        2: re.sub(r"⟦\d+⟧", "", text) + POISON,
        3: text.replace(numbered[0], numbered[-1]) + POISON if numbered else POISON,
        4: "",
        5: " \n ",
        6: text * 3 + POISON,
        7: text[: len(text) // 2] + POISON,
        8: f"<think>{POISON}",
        9: f"{POISON} ⟦9⟧",
    }
    if kind == 10:
        return web.json_response({"error": {"message": POISON, "type": "x", "param": None, "code": None}}, status=500)
    if kind == 11:
        return web.Response(body=b"\xff\xfe" + POISON.encode(), content_type="application/json")
    if kind == 12:
        return web.json_response(reply(text + SAID, "length"))
    if kind == 13 and len(text) % 25 == 0:
        await asyncio.sleep(20)
    if kind == 14:
        assert request.transport is not None
        request.transport.close()
    return web.json_response(reply(texts.get(kind, text + SAID)))


async def ask(proxy: Running, seed: int, seen: Counter[str]) -> None:
    body: Body = {"model": "sample", "stream": True, "user": str(seed), "messages": [{"role": "user", "content": QUESTION}]}
    got = await proxy.post(body)
    assert got.status == 200, (seed, got.body)
    assert got.body.endswith(DONE), (seed, got.body[-300:])
    chunks = parsed(got.body)
    text = text_of(chunks)
    assert "wizard" not in text, seed
    assert text.replace(SAID, "") == document(seed), seed
    visa = chunks[-1]["visa"]
    windows = visa.get("windows") or {visa["status"]: 1}  # without windows: only code, or a single window
    assert text.count(SAID) == windows.get("adapted", 0), seed
    seen.update({status: count for status, count in windows.items() if status != "total"})


@pytest.mark.timeout(300)
async def test_every_byte_is_a_verified_rewrite_or_the_base_s(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    base.answer, rewriter.answer = says_its_document, misbehaves
    limits = "{requests_per_minute: 1000000, concurrent: 1000}"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=SHIELD, limits=limits))
    seen: Counter[str] = Counter()
    seeds = iter(range(DOCUMENTS))

    async def worker() -> None:
        for seed in seeds:
            await ask(proxy, seed, seen)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    outcomes = Counter({status.partition(":")[0]: 0 for status in seen})
    for status, count in seen.items():
        outcomes[status.partition(":")[0]] += count
    # Of everything there was enough for the test to mean something.
    assert outcomes["adapted"] > 500, seen
    assert outcomes["fallback"] > 500, seen
    assert seen["skipped:verbatim"] > 20, seen
    reasons = {"placeholders", "facts", "unchanged"} & {status.rpartition("-")[2] for status in seen}
    assert len(reasons) >= 2, seen
    assert {f"fallback:rewriter-{why}" for why in ("empty", "error", "garbled", "endless")} <= set(seen), seen
