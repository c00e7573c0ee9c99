"""What the store costs a passed-through request: CPU per request with and without it, side by side in one run.

    python benchmarks/store.py [--rounds 7] [--seconds 4] [--url postgresql://…]

Two proxies in front of one static upstream (nginx), alternating under the same load (wrk); the second keeps every request in SQLite, or
at `--url`, an empty database. CPU is that of the whole process, the writing thread's included; a Postgres server's own is not. The median
of the rounds' ratios is what to quote; on a machine that others use too, the ratio of the least CPU of each, because others only add.
Says how many exposures were written: a store that drops them is cheap.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from passthrough import CONNECTIONS, HERE, Round, burst, config
from proxy import ROOT, machine, running
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visa_proxy.engines.ports import free_port

SETTLE_S = 20.0
console = Console()


def measure(folder: Path, rounds: int, seconds: int, url: str) -> tuple[dict[str, list[Round]], dict[str, float]]:
    """Rounds by what was measured; and what the store's own counters said in the end."""
    found: dict[str, list[Round]] = {"without": [], "with": []}
    ports = {}
    for name in found:
        (folder / name).mkdir()
        ports[name] = free_port()
        config(folder / name, ports[name])
    with (folder / "with" / "visa.yaml").open("a") as file:
        file.write(f"store: {url}\n")
    without, kept = (("serve", "--config", str(folder / name / "visa.yaml")) for name in found)
    with (
        running(*without, port=ports["without"], log=folder / "without.log") as first,
        running(*kept, port=ports["with"], log=folder / "with.log") as second,
    ):
        for number in track(range(rounds), description="rounds", console=console):
            # Who comes first changes, so that a machine that gets busier or hotter hurts both alike.
            pids = {"without": first, "with": second}
            for name in sorted(pids, reverse=bool(number % 2)):
                found[name].append(burst(f"http://127.0.0.1:{ports[name]}", pids[name], seconds))
        return found, counters(ports["with"])


def counters(port: int) -> dict[str, float]:
    """When nothing waits to be written any more."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            said = dict(re.findall(r"^(visa_store_\S+) (\S+)$", answer.read().decode(), re.MULTILINE))
        found = {name: float(value) for name, value in said.items()}
        if not found["visa_store_queue"] or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def report(found: dict[str, list[Round]], said: dict[str, float], url: str) -> float:
    """Prints it; the value is the median of the ratios of CPU per request, less one."""
    where = url.partition(":")[0]
    console.print(
        f"pass-through, {CONNECTIONS} connections, {machine()}; medians of {len(found['with'])} rounds; store in {where}"
    )
    table = Table("store", "requests/s", "CPU µs per request", "RSS MB", "failed")
    for name, mine in found.items():
        cells = [[row.requests_per_s for row in mine], [row.cpu_us for row in mine], [row.rss_mb for row in mine]]
        table.add_row(name, *(f"{statistics.median(cell):,.0f}" for cell in cells), str(sum(row.failed for row in mine)))
    console.print(table)
    ratios = [kept.cpu_us / bare.cpu_us - 1 for kept, bare in zip(found["with"], found["without"], strict=True)]
    middle = statistics.median(ratios)
    console.print(f"CPU per request, added by the store: median {middle:+.1%} ({min(ratios):+.1%} … {max(ratios):+.1%})")
    least = {name: min(row.cpu_us for row in mine) for name, mine in found.items()}
    console.print(
        f"of the least of each: {least['without']:,.0f} and {least['with']:,.0f} µs, {least['with'] / least['without'] - 1:+.1%}"
    )
    written, dropped = said.get('visa_store_writes_total{result="written"}', 0), said["visa_store_dropped_total"]
    console.print(f"exposures written: {written:,.0f}; dropped: {dropped:,.0f}; waiting: {said['visa_store_queue']:,.0f}")
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of load per round")
    parser.add_argument("--url", default="sqlite:///visa.db", help="of the store")
    options = parser.parse_args()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: it is in the system's packages (apt-get install {program})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["nginx", "-p", name, "-c", str(HERE / "upstream.conf")], check=True, cwd=ROOT)
        try:
            report(*measure(folder, options.rounds, options.seconds, options.url), options.url)
        finally:
            nginx = folder / "upstream.pid"
            if nginx.exists():
                os.kill(int(nginx.read_text()), 15)


if __name__ == "__main__":
    main()
