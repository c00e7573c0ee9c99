"""What the ways of serving the rewriter on vLLM save: n-gram speculation, prefix cache, one server for base and rewriter.

    .venv-vllm/bin/python benchmarks/rewriter.py [--answers 12] [--at-once 4]

Speculation: the bundled rewriter on the sample answers, greedy; it copies most of what it reads. The servers of a comparison take turns.
Prefix cache: the prompt for instruction-tuned models, whose long first part all tenants share, with 16 tokens of answer; the same weights.
Shared server: whole requests through `visa-proxy serve`; base and rewriter are the bundled weights, once as two servers, once as one
server whose rewriter is a LoRA adapter of the base. Writes docs/results/rewriter.md and rewriter.json, unless --answers is below 12.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI
from proxy import ROOT, machine, rss_mb
from replies import ARGS, HEAD, LONGEST, SETTLE_S, Reply, Row, all_of, cells, client_of, markdown, row, texts, vllm, wait
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from shared_server import through_proxy

from visa_proxy.rewriter.prompt import Style, render
from visa_proxy.values import ValueVector, load_space

RESULTS: Final = ROOT / "docs" / "results"
QUOTED: Final = 12
"""Fewer answers than this are a trial, whose figures are not written down."""
SPEEDUP: Final = 2.0
"""What speculation must be worth, in tokens a second, one request at a time."""
SHORT: Final = 16
LONG: Final = (*ARGS, "--hf-overrides", '{"max_position_embeddings": 4096}', "--max-model-len", "4096")
SETTINGS: Final[tuple[tuple[str, Style, bool, dict[str, tuple[bool, tuple[str, ...]]]], ...]] = (
    ("speculation", "compact", False, {"none": (False, ARGS), "ngram": (True, ARGS)}),
    ("prefix cache", "full", True, {"off": (True, (*LONG, "--no-enable-prefix-caching")), "on": (True, LONG)}),
)
"""What is compared, the style of its prompts, whether the answers are cut short, and each way: with n-grams, and vLLM's arguments."""
console = Console()


def asked(style: Style, text: str, number: int) -> list[dict[str, str]]:
    """The rewriter's prompt for `text` with one of three targets."""
    space = load_space("schwartz")
    targets: tuple[dict[str, float], ...] = ({"security": 1.0}, {"stimulation": 1.0, "security": -0.5}, {"benevolence": 0.5})
    return render(style, query="", text=text, target=ValueVector.of(space, targets[number % len(targets)]))


async def reply(client: AsyncOpenAI, messages: Any, *, max_tokens: int) -> Reply:
    started = time.perf_counter()
    answer = await client.chat.completions.create(
        model="rewriter",
        messages=messages,
        temperature=0,
        max_tokens=max_tokens,
        extra_body={"min_tokens": min(SHORT, max_tokens)},
    )
    seconds = time.perf_counter() - started
    assert answer.usage is not None
    return Reply(answer.choices[0].message.content or "", seconds, answer.usage.prompt_tokens, answer.usage.completion_tokens)


async def warm(url: str, messages: Any) -> None:
    """A whole answer: what is compiled or set up at the first use is there then."""
    async with client_of(url) as client:
        await reply(client, messages, max_tokens=LONGEST)


async def compare(
    what: str,
    servers: dict[str, tuple[str, int]],
    style: Style,
    answers: list[str],
    at_once: int,
    progress: Progress,
    *,
    short: bool,
) -> list[Row]:
    """Each way in turn, three rounds of them."""
    rows: list[Row] = []
    numbered = list(enumerate(answers))
    longest = SHORT if short else LONGEST
    async with contextlib.AsyncExitStack() as stack:
        clients = {how: await stack.enter_async_context(client_of(url)) for how, (url, _) in servers.items()}
        for several in (1, at_once):
            task = progress.add_task(f"{what}, {several} at once", total=len(answers))
            found: dict[str, list[Reply]] = {how: [] for how in servers}
            spent = dict.fromkeys(servers, 0.0)
            step = max(several, len(answers) // 3)
            for at in range(0, len(answers), step):
                for how, client in clients.items():
                    await asyncio.sleep(SETTLE_S)
                    jobs = [
                        functools.partial(reply, client, asked(style, text, number), max_tokens=longest)
                        for number, text in numbered[at : at + step]
                    ]
                    replies, seconds = await all_of(jobs, several)
                    found[how] += replies
                    spent[how] += seconds
                progress.advance(task, step)
            first = next(iter(found.values()))
            rows += [row(what, how, several, found[how], spent[how], rss_mb(pid), first) for how, (_, pid) in servers.items()]
    return rows


def show(what: str, rows: list[Row]) -> list[Row]:
    """Prints a comparison as soon as it is there."""
    table = Table(*HEAD, title=what)
    for line in cells(rows):
        table.add_row(*line)
    console.print(table)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=QUOTED)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    answers, rows = texts(options.answers), []
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        folder = Path(temporary)
        for what, style, short, ways in SETTINGS:
            with contextlib.ExitStack() as stack:
                servers = {
                    how: stack.enter_context(vllm(f"{what}-{how}", folder, ngram=ngram, args=args))
                    for how, (ngram, args) in ways.items()
                }
                for url, _ in servers.values():
                    asyncio.run(wait(url))
                    asyncio.run(warm(url, asked(style, answers[-1], 1)))
                rows += show(what, asyncio.run(compare(what, servers, style, answers, options.at_once, progress, short=short)))
        rows += show("whole request", through_proxy(folder, answers, options.at_once, progress))
    plain, ngram = (row for row in rows if row.what == "speculation" and row.at_once == 1)
    ratio = ngram.tokens_per_s / plain.tokens_per_s
    console.print(
        f"speculation: {ratio:.2f} times the tokens a second, {ngram.same_text:.0%} of the texts the same (at least {SPEEDUP})"
    )
    if options.answers >= QUOTED:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "rewriter.md").write_text(markdown(rows, len(answers)))
        (RESULTS / "rewriter.json").write_text(
            json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
