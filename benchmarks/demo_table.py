"""Every sample question, every example tenant, through the running demo: what became of the answers.

    make results          or          python benchmarks/demo_table.py [--limit N]

Prints the table, and writes docs/results/demo.md, demo.json and demo.svg. The sample answers are in no training set of the bundled
weights, so this is held-out text; the instruments that measure (detector, fact analyzer) are the ones that verify.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from proxy import ROOT, machine, running
from rich.console import Console
from rich.progress import track

from visa_proxy.demo.base import MODEL, Entry, load_entries
from visa_proxy.engines.ports import free_port
from visa_proxy.policy.load import load_policies, policy_files
from visa_proxy.shield.preserve import protect

RESULTS = ROOT / "docs" / "results"
AT_ONCE = 2
RESAMPLES = 2000
MIN_ADAPTED = 0.7
console = Console()


async def ask(client: AsyncOpenAI, entry: Entry) -> dict[str, Any]:
    """One answer, as the official client sees it."""
    started = time.perf_counter()
    reply = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": entry.question}])
    seconds = time.perf_counter() - started
    text = reply.choices[0].message.content or ""
    visa = (reply.model_extra or {})["visa"]
    return {"id": entry.id, "text": text, "intact": intact(entry.answer, text), "seconds": seconds, **visa}


def intact(answer: str, text: str) -> bool:
    """Every verbatim span of the base's answer stands in the client's text, whole and in order."""
    position = 0
    for span in protect(answer).spans:
        found = re.compile(rf"(?<!\w){re.escape(span)}(?!\w)").search(text, position)
        if found is None:
            return False
        position = found.end()
    return True


async def measure(port: int, entries: list[Entry], tenants: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for tenant in tenants:
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=f"sk-{tenant}-demo", max_retries=0)
        for start in track(range(0, len(entries), AT_ONCE), description=tenant, console=console):
            rows += await asyncio.gather(*(ask(client, entry) for entry in entries[start : start + AT_ONCE]))
        await client.close()
    return rows


def interval(values: list[float]) -> str:
    """Mean and its bootstrap 95 % interval, seed 0."""
    if not values:
        return "–"
    array, rng = np.asarray(values), np.random.default_rng(0)
    means = array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{array.mean():.3f} [{low:.3f}, {high:.3f}]"


def table(rows: list[dict[str, Any]], tenants: list[str]) -> list[str]:
    head = "| tenant | answers | adapted | consistency | similarity before | similarity after | spans intact | median s |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for name, wanted in [*((tenant, [tenant]) for tenant in tenants), ("all", tenants)]:
        mine = [row for row in rows if row["tenant"] in wanted]
        adapted = [row for row in mine if row["status"] == "adapted"]
        share = interval([float(row["status"] == "adapted") for row in mine])
        cells = [
            name,
            str(len(mine)),
            share,
            interval([row["consistency"] for row in adapted]),
            interval([row["similarity"]["before"] for row in adapted]),
            interval([row["similarity"]["after"] for row in adapted]),
            f"{sum(row['intact'] for row in mine)}/{len(mine)}",
            f"{np.median([row['seconds'] for row in mine]):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def statuses(rows: list[dict[str, Any]]) -> list[str]:
    counts = collections.Counter(row["status"] for row in rows)
    return ["| status | answers |", "|---|---|", *(f"| `{status}` | {count} |" for status, count in counts.most_common())]


def examples(rows: list[dict[str, Any]], entries: list[Entry], tenants: list[str]) -> list[str]:
    """The first question that was adapted for every tenant."""
    for entry in entries:
        mine = {row["tenant"]: row for row in rows if row["id"] == entry.id and row["status"] == "adapted"}
        if len(mine) == len(tenants):
            quoted = [f"**{tenant}:** {mine[tenant]['text']}" for tenant in tenants]
            return [
                f"Question: {entry.question}",
                "",
                f"**base:** {entry.answer}",
                *(line for text in quoted for line in ("", text)),
            ]
    return ["No question was adapted for every tenant."]


def plot(rows: list[dict[str, Any]], tenants: list[str], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "visa-proxy"  # the same figures give the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tenants), figsize=(4 * len(tenants), 3.6), sharey=True)
    for axis, tenant in zip(axes, tenants, strict=True):
        adapted = [row for row in rows if row["tenant"] == tenant and row["status"] == "adapted"]
        before = [row["similarity"]["before"] for row in adapted]
        axis.scatter(before, [row["similarity"]["after"] for row in adapted], s=14, alpha=0.7)
        axis.plot([-1, 1], [-1, 1], color="grey", linewidth=0.8)
        axis.set(title=tenant, xlabel="similarity to the target: base", xlim=(-1, 1), ylim=(-1, 1))
    axes[0].set_ylabel("similarity to the target: rewrite")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first N questions, and write nothing")
    options = parser.parse_args()
    entries = load_entries()[: options.limit]
    tenants = sorted(load_policies(policy_files(ROOT / "policies")).tenants)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "demo.log"
        with running("demo", port=port, log=log):
            rows = asyncio.run(measure(port, entries, tenants))
    lines = table(rows, tenants)
    report = [
        "# The demo: every sample question, every example tenant",
        "",
        f"Written by `make results` (benchmarks/demo_table.py) on {machine()}.",
        f"{len(entries)} questions x {len(tenants)} tenants, greedy decoding first; means with bootstrap 95 % intervals (seed 0). Similarity",
        "(cosine to the target v*) and consistency (weaker direction of entailment) are over the adapted answers.",
        "",
        *lines,
        "",
        *statuses(rows),
        "",
        "![similarity to the target, before and after](demo.svg)",
        "",
        "## One question, three voices",
        "",
        *examples(rows, entries, tenants),
        "",
    ]
    console.print("\n".join(report), markup=False)
    if options.limit is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "demo.md").write_text("\n".join(report), encoding="utf-8")
        (RESULTS / "demo.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        plot(rows, tenants, RESULTS / "demo.svg")
    adapted = np.mean([row["status"] == "adapted" for row in rows])
    if adapted < MIN_ADAPTED or not all(row["intact"] for row in rows):
        sys.exit(f"below the mark: {adapted:.0%} adapted (at least {MIN_ADAPTED:.0%}), or a verbatim span was lost")


if __name__ == "__main__":
    main()
