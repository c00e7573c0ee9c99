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
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
from openai import AsyncOpenAI
from proxy import ROOT, child, machine, rss_mb, running
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from visa_proxy.demo.base import load_entries
from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.engines.vllm import serve_command
from visa_proxy.policy.keys import hash_key
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.rewriter.prompt import Style, render
from visa_proxy.values import ValueVector, load_space

RESULTS: Final = ROOT / "docs" / "results"
QUOTED: Final = 12
"""Fewer answers than this are a trial, whose figures are not written down."""
SPEEDUP: Final = 2.0
"""What speculation must be worth, in tokens a second, one request at a time."""
MODEL: Final = str(BUNDLED_MODEL)
WORDS: Final = 60
WHOLE: Final = 6
"""Answers that are asked for through the proxy."""
SHORT: Final = 16
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
LONG: Final = (*ARGS, "--hf-overrides", '{"max_position_embeddings": 4096}', "--max-model-len", "4096")
SETTINGS: Final[tuple[tuple[str, Style, bool, dict[str, tuple[bool, tuple[str, ...]]]], ...]] = (
    ("speculation", "compact", False, {"none": (False, ARGS), "ngram": (True, ARGS)}),
    ("prefix cache", "full", True, {"off": (True, (*LONG, "--no-enable-prefix-caching")), "on": (True, LONG)}),
)
"""What is compared, the style of its prompts, whether the answers are cut short, and each way: with n-grams, and vLLM's arguments."""
console = Console()


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


def asked(style: Style, text: str, number: int) -> list[dict[str, str]]:
    """The rewriter's prompt for `text` with one of three targets."""
    space = load_space("schwartz")
    targets: tuple[dict[str, float], ...] = ({"security": 1.0}, {"stimulation": 1.0, "security": -0.5}, {"benevolence": 0.5})
    return render(style, query="", text=text, target=ValueVector.of(space, targets[number % len(targets)]))


def client_of(url: str) -> AsyncOpenAI:
    """The official client; the key is the one that the proxy knows."""
    return AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=300)


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


POLICY: Final = """\
tenant: benchmark
api_keys: ["{hash}"]
default_profile: secure
profiles: {{secure: {{values: {{security: 1.0}}}}}}
rewriter: {{model: {model}}}
limits: {{requests_per_minute: 100000}}
"""
SHARED: Final = """\
bases: {{default: {{url: "http://{host}:{port}/v1", model: base}}}}
rewriter:
  style: compact
  launch: {{engine: vllm, model: bundled, served_model_name: base, port: {port}, adapters: {{voice: ./voice}}, args: {args}}}
"""
SEPARATE: Final = """\
bases: {{default: {{url: "{url}", model: rewriter}}}}
rewriter: {{style: compact, launch: {{engine: vllm, model: bundled, served_model_name: voice, port: {port}, args: {args}}}}}
"""


def write_voice(folder: Path) -> None:
    """An adapter that changes nothing, so that both ways say the same: what it costs is that of any other of rank 8."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "none", "base_model_name_or_path": MODEL}))
    weights = {}
    for layer in range(4):
        for part, width in (("q_proj", 256), ("v_proj", 128)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            weights[f"{name}.lora_A.weight"] = np.ones((8, 256), np.float32)
            weights[f"{name}.lora_B.weight"] = np.zeros((width, 8), np.float32)
    save_file(weights, folder / "adapter_model.safetensors")


async def whole(url: str, answers: list[str], at_once: int, progress: Progress, how: str) -> tuple[list[Reply], float]:
    """Requests through the proxy. The base is asked to repeat an answer (its prompt for "neutral"), so that it gives one of ours."""
    task = progress.add_task(f"whole requests, {how}, {at_once} at once", total=len(answers))

    async def one(client: AsyncOpenAI, text: str) -> Reply:
        started = time.perf_counter()
        answer = await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": f"neutral\n{text}"}], temperature=0, max_tokens=LONGEST
        )
        seconds = time.perf_counter() - started
        progress.advance(task)
        assert answer.model_extra is not None and answer.usage is not None
        spent = answer.model_extra["visa"].get("usage", {}).get("completion_tokens", 0)
        return Reply(answer.choices[0].message.content or "", seconds, 0, answer.usage.completion_tokens + spent)

    async with client_of(url) as client:
        return await all_of([functools.partial(one, client, text) for text in answers], at_once)


def through_proxy(folder: Path, answers: list[str], at_once: int, progress: Progress) -> list[Row]:
    """Base and rewriter as two servers and as one, all running at once; they take turns."""
    answers, at_once = answers[:WHOLE], min(at_once, 2)
    args = json.dumps(list(ARGS))
    # Three engines, two proxies and their encoders run here: a thread for each, or they wait for each other.
    os.environ.update({**ENV, "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    with contextlib.ExitStack() as stack:
        base_url, base_pid = stack.enter_context(vllm("base", folder, ngram=True))
        asyncio.run(wait(base_url))
        places: dict[str, tuple[str, int, int]] = {}
        for how, config, model in (
            ("two servers", SEPARATE.format(url=base_url, port=free_port(), args=args), "voice"),
            ("one server", SHARED.format(host=HOST, port=free_port(), args=args), "voice"),
        ):
            home = folder / how.replace(" ", "-")
            (home / "policies").mkdir(parents=True)
            (home / "policies" / "benchmark.yaml").write_text(POLICY.format(hash=hash_key(KEY), model=model))
            (home / "visa.yaml").write_text(config)
            write_voice(home / "voice")
            port = free_port()
            log = home / "serve.log"
            pid = stack.enter_context(running("serve", "--config", str(home / "visa.yaml"), port=port, log=log))
            places[how] = f"http://{HOST}:{port}/v1", pid, base_pid if how == "two servers" else 0
        for how, (url, _, _) in places.items():
            asyncio.run(whole(url, answers[:2], 1, progress, f"warm-up of {how}"))
        rows = []
        for several in (1, at_once):
            found: dict[str, list[Reply]] = {how: [] for how in places}
            spent = dict.fromkeys(places, 0.0)
            step = max(several, len(answers) // 3)
            for at in range(0, len(answers), step):
                for how, (url, _, _) in places.items():
                    time.sleep(SETTLE_S)
                    replies, seconds = asyncio.run(whole(url, answers[at : at + step], several, progress, how))
                    found[how] += replies
                    spent[how] += seconds
            first = found["two servers"]
            for how, (_, pid, base) in places.items():
                servers = sum(rss_mb(each) for each in (_rewriter(pid), base) if each)
                rows.append(row("whole request", how, several, found[how], spent[how], servers, first))
    return rows


def _rewriter(pid: int) -> int:
    """The child of the proxy."""
    return int(subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()[0])


HEAD: Final = ("", "at once", "tokens/s", "p50 s", "p95 s", "RSS MB", "same text", "tokens/s, ratio", "p50, ratio")


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


def show(what: str, rows: list[Row]) -> list[Row]:
    """Prints a comparison as soon as it is there."""
    table = Table(*HEAD, title=what)
    for line in cells(rows):
        table.add_row(*line)
    console.print(table)
    return rows


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
