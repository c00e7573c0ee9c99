"""What rewriting a stream costs its reader: time to the first token and in all, beside the base model alone.

    python benchmarks/streaming.py [--answers 30] [--pace 50] [--only paced|unpaced]

Different answers of about 300 tokens are asked for in stream mode: of the sample base directly, through the tenant acme-outdoors with
`streaming: full`, and with `streaming: window`. The three take turns, one request at a time; the base streams at --pace tokens a second,
then as fast as it is read. Writes docs/results/streaming.md and streaming.json, unless --answers is below 30.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import itertools
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from openai import AsyncOpenAI
from proxy import ROOT, cpu_s, machine, running
from rich.console import Console
from rich.progress import Progress
from sample_base import sample_base

from visa_proxy.demo.base import MODEL, Entry, load_entries
from visa_proxy.engines.ports import free_port

RESULTS: Final = ROOT / "docs" / "results"
TOKENS: Final = 300
SLACK: Final = 20
QUOTED: Final = 30
"""Fewer answers than this are a trial, whose figures are not written down."""
MODES: Final = ("base", "full", "window")
MAX_FIRST: Final = 0.2
"""Time to the first rewritten token, window by full: the median may not exceed this."""
MAX_TOTAL: Final = 1.2
"""Total time, window by the base alone, when the base is paced."""
ASK_S: Final = 120.0
console = Console()


@dataclass(frozen=True)
class Answer:
    """One streamed answer as the official client saw it; times in seconds from when it was asked for."""

    number: int
    pace: str
    mode: str
    first_s: float
    """To the first token: of the base's own text, or of the rewritten text."""
    total_s: float
    longest_s: float
    """The longest silence after the first token."""
    tokens: int
    cpu_s: float
    """Of the proxy and its rewriter; 0 for the base alone."""
    status: str
    windows: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


def messages(count: int) -> list[str]:
    """`count` different messages of several questions each whose bundled answers have about 300 tokens together, seed 0."""
    entries, rng = load_entries(), random.Random(0)
    found: dict[str, None] = {}
    for _ in range(100_000):
        asked: list[Entry] = []
        rng.shuffle(entries)
        for entry in entries:
            if sum(len(one.answer.split()) for one in asked) >= TOKENS - SLACK:
                break
            asked.append(entry)
        if sum(len(one.answer.split()) for one in asked) <= TOKENS + SLACK:
            found[" ".join(entry.question for entry in asked)] = None
        if len(found) == count:
            return list(found)
    raise SystemExit(f"there are not {count} messages with answers of {TOKENS} tokens")


async def ask(client: AsyncOpenAI, message: str, *, number: int, pace: str, mode: str, pid: int | None) -> Answer:
    """One answer, read to its end."""
    spent = cpu_s(pid) if pid is not None else 0.0
    asked = time.perf_counter()
    arrivals: list[float] = []
    text = ""
    visa: dict[str, Any] = {"status": "base"}
    async with asyncio.timeout(ASK_S):
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": message}], stream=True, user=f"reader-{number}"
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                arrivals.append(time.perf_counter() - asked)
                text += chunk.choices[0].delta.content
            visa = (chunk.model_extra or {}).get("visa", visa)
    total = time.perf_counter() - asked
    return Answer(
        number,
        pace,
        mode,
        first_s=arrivals[0],
        total_s=total,
        longest_s=max((later - one for one, later in itertools.pairwise(arrivals)), default=0.0),
        tokens=len(text.split()),
        cpu_s=cpu_s(pid) - spent if pid is not None else 0.0,
        status=visa["status"],
        windows=visa.get("windows", {}),
        timings_ms=visa.get("timings_ms", {}),
    )


def config(folder: Path, bases: dict[str, str], modes: tuple[str, ...], candidates: int | None) -> Path:
    """A visa.yaml with a tenant `PACE-MODE` for each base and mode: the profile bold of acme-outdoors, but for its streaming."""
    policies = folder / "policies"
    policies.mkdir()
    for pace in bases:
        for mode in modes:
            name = f"{pace}-{mode}"
            policy = yaml.safe_load((ROOT / "policies" / "acme-outdoors.yaml").read_text(encoding="utf-8"))
            policy |= {"tenant": name, "base": pace, "api_keys": [f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"]}
            policy["profiles"] = {"bold": policy["profiles"]["bold"]}
            del policy["experiments"], policy["request"]
            policy["shield"]["streaming"] = mode
            policy["shield"]["candidates"] = candidates or policy["shield"]["candidates"]
            (policies / f"{name}.yaml").write_text(yaml.safe_dump(policy))
    path = folder / "visa.yaml"
    path.write_text(yaml.safe_dump({"bases": {pace: {"url": url} for pace, url in bases.items()}}))
    return path


async def measure(clients: dict[str, dict[str, AsyncOpenAI]], asked: list[str], pid: int) -> list[Answer]:
    """Every message, of every mode in turn, for every pace; each mode is warmed up first."""
    answers: list[Answer] = []
    with Progress(console=console) as progress:
        for pace, modes in clients.items():
            task = progress.add_task(pace, total=len(asked) * len(modes))
            for mode, client in modes.items():
                await ask(client, asked[-1], number=-1, pace=pace, mode=mode, pid=None)
            for number, message in enumerate(asked):
                for mode, client in modes.items():
                    of = None if mode == "base" else pid
                    answers.append(await ask(client, message, number=number, pace=pace, mode=mode, pid=of))
                    progress.advance(task)
    return answers


async def run(folder: Path, path: Path, bases: dict[str, str], modes: tuple[str, ...], asked: list[str]) -> list[Answer]:
    """The answers, through a proxy with the config at `path`."""
    port = free_port()
    with running("serve", "--config", str(path), port=port, log=folder / "serve.log") as pid:
        async with contextlib.AsyncExitStack() as stack:
            clients: dict[str, dict[str, AsyncOpenAI]] = {}
            for pace, url in bases.items():
                targets = {"base": (url, "-")}
                targets |= {mode: (f"http://127.0.0.1:{port}/v1", f"{pace}-{mode}") for mode in modes}
                clients[pace] = {
                    mode: await stack.enter_async_context(AsyncOpenAI(base_url=where, api_key=key, max_retries=0))
                    for mode, (where, key) in targets.items()
                }
            return await measure(clients, asked, pid)


def of(answers: list[Answer], pace: str, mode: str) -> list[Answer]:
    return [answer for answer in answers if (answer.pace, answer.mode) == (pace, mode)]


def spread(values: list[float], digits: int = 2) -> str:
    """p50 and p95, "–" for none."""
    return f"{np.percentile(values, 50):.{digits}f} / {np.percentile(values, 95):.{digits}f}" if values else "–"


def table(answers: list[Answer], paces: list[str]) -> list[str]:
    lines = [
        "| base | answer | first token s | total s | longest silence s | CPU s per answer | status of the answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for pace in paces:
        for mode in MODES:
            mine = of(answers, pace, mode)
            if mine:
                statuses = collections.Counter(answer.status for answer in mine)
                cells = [
                    pace,
                    {"base": "the base alone"}.get(mode, f"`streaming: {mode}`"),
                    spread([answer.first_s for answer in mine]),
                    spread([answer.total_s for answer in mine]),
                    spread([answer.longest_s for answer in mine]),
                    spread([answer.cpu_s for answer in mine]) if mode != "base" else "–",
                    "–" if mode == "base" else ", ".join(f"`{status}` {count}" for status, count in statuses.most_common()),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


@dataclass(frozen=True)
class Bound:
    """A ratio that is promised: of the same answer in two modes."""

    name: str
    limit: float
    ratios: list[float]

    @property
    def kept(self) -> bool:
        return bool(np.median(self.ratios) <= self.limit)

    def row(self) -> str:
        return f"| {self.name} | {spread(self.ratios)} | ≤ {self.limit:g} | {'yes' if self.kept else 'no'} |"


def bounds(answers: list[Answer], paces: list[str]) -> list[Bound]:
    found: list[Bound] = []
    for pace in paces:
        base, full, window = (of(answers, pace, mode) for mode in MODES)
        if not window or not full:
            continue
        first = [ours.first_s / theirs.first_s for ours, theirs in zip(window, full, strict=True)]
        found.append(Bound(f"first rewritten token, window by full, {pace} base", MAX_FIRST, first))
        if pace == "paced":
            total = [ours.total_s / theirs.total_s for ours, theirs in zip(window, base, strict=True)]
            found.append(Bound("total time, window by the base alone, paced base", MAX_TOTAL, total))
    return found


def window_shares(answers: list[Answer]) -> list[str]:
    """What became of the windows."""
    counts: collections.Counter[str] = collections.Counter()
    for answer in answers:
        if answer.mode == "window":
            counts.update({status: count for status, count in answer.windows.items() if status != "total"})
    total = sum(counts.values())
    rows = [f"| `{status}` | {count} | {count / total:.1%} |" for status, count in counts.most_common()]
    return ["| window | windows | share |", "|---|---|---|", *rows] if total else ["No answer was rewritten in windows."]


def report(answers: list[Answer], paces: list[str], options: argparse.Namespace) -> list[str]:
    plain = [answer for answer in answers if answer.mode == "base"]
    return [
        "# Streaming: what rewriting costs the reader",
        "",
        f"Written by `python benchmarks/streaming.py --answers {options.answers} --pace {options.pace:g}` on {machine()}.",
        f"{options.answers} different answers of {spread([float(answer.tokens) for answer in plain], 0)} tokens, one request at a time,",
        f"the modes in turn; policy: acme-outdoors. The paced base streams {options.pace:g} tokens a second. All cells are p50 / p95.",
        "Base, proxy, rewriter and client share the machine. First token: the first text that reaches the client, rewritten but for the",
        "base alone.",
        "",
        *table(answers, paces),
        "",
        "| the same answer | ratio | bound on the median | kept |",
        "|---|---|---|---|",
        *(bound.row() for bound in bounds(answers, paces)),
        "",
        *window_shares(answers),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=QUOTED)
    parser.add_argument("--pace", type=float, default=50.0, help="tokens a second of the paced base")
    parser.add_argument("--only", choices=("paced", "unpaced"))
    parser.add_argument("--modes", nargs="+", choices=MODES[1:], default=MODES[1:], help="beside the base alone")
    parser.add_argument("--candidates", type=int, help="instead of the policy's")
    options = parser.parse_args()
    paces = {"paced": options.pace, "unpaced": None}
    paces = {pace: rate for pace, rate in paces.items() if options.only in (None, pace)}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bases = {
            pace: stack.enter_context(sample_base(free_port(), folder / f"{pace}.log", tokens_per_s=rate))
            for pace, rate in paces.items()
        }
        path = config(folder, bases, tuple(options.modes), options.candidates)
        answers = asyncio.run(run(folder, path, bases, tuple(options.modes), messages(options.answers)))
    lines = report(answers, list(paces), options)
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    if options.answers >= QUOTED and len(paces) == 2 and len(options.modes) == 2 and options.candidates is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "streaming.md").write_text("\n".join(lines), encoding="utf-8")
        rows: list[dict[str, Any]] = [asdict(answer) for answer in answers]
        (RESULTS / "streaming.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    missed = [bound.name for bound in bounds(answers, list(paces)) if not bound.kept]
    if missed:
        sys.exit(f"out of bounds: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
