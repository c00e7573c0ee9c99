"""How long a rewrite takes on the embedded default, one request at a time, warm.

    python benchmarks/rewrite.py [--answers 30]

Asks the running demo for sample answers of about 60 tokens, with the tenant acme-outdoors and passed through, and prints the time that
the rewriting adds, and where it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from proxy import machine, rss_mb, running
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visa_proxy.demo.base import MODEL, Entry, load_entries
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.engines.ports import free_port

WANTED = 60
"""Tokens of a base answer, in the encoder's vocabulary."""
SLACK = 20
console = Console()


def chosen(count: int) -> list[Entry]:
    """The `count` sample answers nearest to 60 tokens, within 20."""
    tokenizer: Any = SentenceEncoder()._tokenizer
    distance = {entry.id: abs(len(tokenizer.tokenize(entry.answer)) - WANTED) for entry in load_entries()}
    near = [entry for entry in load_entries() if distance[entry.id] <= SLACK]
    return sorted(near, key=lambda entry: distance[entry.id])[:count]


async def measure(port: int, entries: list[Entry]) -> tuple[list[float], list[float], list[dict[str, Any]]]:
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-acme-outdoors-demo", max_retries=0)

    async def timed(entry: Entry, profile: str) -> tuple[float, Any]:
        started = time.perf_counter()
        reply = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": entry.question}], extra_headers={"X-Visa-Profile": profile}
        )
        return time.perf_counter() - started, (reply.model_extra or {}).get("visa")

    await timed(entries[0], "bold")
    plain: list[float] = []
    bold: list[float] = []
    visas: list[dict[str, Any]] = []
    for entry in track(entries, description="asking", console=console):
        plain.append((await timed(entry, "off"))[0])
        seconds, visa = await timed(entry, "bold")
        bold.append(seconds)
        visas.append(visa)
    await client.close()
    return plain, bold, visas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=30)
    options = parser.parse_args()
    entries = chosen(options.answers)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, running("demo", port=port, log=Path(folder) / "demo.log") as pid:
        plain, bold, visas = asyncio.run(measure(port, entries))
        memory = rss_mb(pid)
    console.print(f"{len(entries)} base answers of about {WANTED} tokens, one at a time, warm, {machine()}")
    table = Table("", "p50 s", "p95 s")
    for name, seconds in (("passed through", plain), ("rewritten and verified", bold)):
        table.add_row(name, f"{statistics.median(seconds):.3f}", f"{statistics.quantiles(seconds, n=20)[-1]:.3f}")
    for stage in ("detect", "rewrite", "verify"):
        spent = [visa["timings_ms"].get(stage, 0) / 1000 for visa in visas]
        table.add_row(f"  of it {stage}", f"{statistics.median(spent):.3f}", f"{statistics.quantiles(spent, n=20)[-1]:.3f}")
    console.print(table)
    adapted = sum(visa["status"] == "adapted" for visa in visas)
    console.print(f"adapted {adapted}/{len(visas)}; demo with all models and the rewriter's process: {memory:,.0f} MB RSS")


if __name__ == "__main__":
    main()
