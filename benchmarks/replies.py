"""What the comparisons of ways to serve the rewriter share: vLLM servers of the bundled weights, timed answers, rows and their tables."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
from openai import AsyncOpenAI
from proxy import child, machine

from visa_proxy.demo.base import load_entries
from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.engines.vllm import serve_command
from visa_proxy.rewriter.chat import BUNDLED_MODEL

MODEL: Final = str(BUNDLED_MODEL)
WORDS: Final = 60
LONGEST: Final = 400
"""Tokens of an answer."""
KEY: Final = "sk-benchmark"
SETTLE_S: Final = 2.0
"""Between two servers: vLLM's processes go on looking for work, each on a core of its own, for a second after the last."""
ENV: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
ARGS: Final = ("--enforce-eager", "--max-num-seqs", "16")
HEAD: Final = ("", "at once", "tokens/s", "p50 s", "p95 s", "RSS MB", "same text", "tokens/s, ratio", "p50, ratio")


@dataclass(frozen=True)
class Reply:
    """One answer of a rewriter."""

    text: str
    seconds: float
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True)
class Row:
    """One way of serving, in one setting."""

    what: str
    how: str
    at_once: int
    tokens_per_s: float
    median_s: float
    """Of one request."""
    p95_s: float
    rss_mb: float
    """Of all servers that take part, the proxy aside."""
    same_text: float
    """Share of the texts that are those of the first way."""


@contextlib.contextmanager
def vllm(name: str, folder: Path, *, ngram: bool, args: Sequence[str] = ARGS) -> Iterator[tuple[str, int]]:
    """URL and process id of a server of the bundled weights, started; `wait` waits for it."""
    port, log = free_port(), folder / f"{name}.log"
    command = serve_command(MODEL, port, served_model_name="rewriter", ngram=ngram, args=args)
    with child(command, log, ENV) as process:
        yield f"http://{HOST}:{port}/v1", process.pid


async def wait(url: str) -> None:
    """Until the server says that it serves."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(400):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url.removesuffix("/v1") + "/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.5)


def texts(count: int) -> list[str]:
    """The `count` sample answers nearest to 60 words."""
    entries = sorted(load_entries(), key=lambda entry: (abs(len(entry.answer.split()) - WORDS), entry.id))
    return [entry.answer for entry in entries[:count]]


def client_of(url: str) -> AsyncOpenAI:
    """The official client; the key is the one that the proxy knows."""
    return AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=300)


async def all_of(jobs: Sequence[Callable[[], Awaitable[Reply]]], at_once: int) -> tuple[list[Reply], float]:
    """The replies, `at_once` at a time, and how long all took."""
    gate = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Awaitable[Reply]]) -> Reply:
        async with gate:
            return await job()

    started = time.perf_counter()
    replies = await asyncio.gather(*(one(job) for job in jobs))
    return list(replies), time.perf_counter() - started


def row(what: str, how: str, at_once: int, replies: list[Reply], seconds: float, rss: float, first: list[Reply] | None) -> Row:
    times = [each.seconds for each in replies]
    same = [a.text == b.text for a, b in zip(replies, first or replies, strict=True)]
    return Row(
        what=what,
        how=how,
        at_once=at_once,
        tokens_per_s=sum(each.tokens for each in replies) / seconds,
        median_s=statistics.median(times),
        p95_s=float(np.percentile(times, 95)),
        rss_mb=rss,
        same_text=sum(same) / len(same),
    )


def cells(rows: list[Row]) -> Iterator[list[str]]:
    """A line for each of `rows`, all of one comparison; ratios are to the first with as many requests at once."""
    for each in rows:
        first = next(one for one in rows if one.at_once == each.at_once)
        yield [
            each.how,
            str(each.at_once),
            f"{each.tokens_per_s:.0f}",
            f"{each.median_s:.3f}",
            f"{each.p95_s:.3f}",
            f"{each.rss_mb:.0f}",
            f"{each.same_text:.0%}",
            f"{each.tokens_per_s / first.tokens_per_s:.2f}",
            f"{each.median_s / first.median_s:.2f}",
        ]


def grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each comparison."""
    return {what: [row for row in rows if row.what == what] for what in dict.fromkeys(row.what for row in rows)}


def markdown(rows: list[Row], answers: int) -> str:
    """The page of results."""
    parts = [
        "# Serving the rewriter on vLLM",
        f"`benchmarks/rewriter.py`, {answers} answers of about {WORDS} words, {machine()}, vLLM's CPU build. In each table all servers "
        "run in the same run and take turns; ratios are to the first row with as many requests at once.",
    ]
    for what, mine in grouped(rows).items():
        lines = [f"## {what.capitalize()}", "", f"| {' | '.join(HEAD)} |", "|---|" + "---:|" * (len(HEAD) - 1)]
        parts.append("\n".join(lines + [f"| {' | '.join(line)} |" for line in cells(mine)]))
    return "\n\n".join(parts) + "\n"
