"""What the store, and the page beside it, cost a passed-through request: CPU per request with and without, side by side in one run.

    python benchmarks/store.py [--ui] [--starts 3] [--rounds 8] [--url postgresql://…]

Three proxies in front of one static upstream (nginx) take turns under the same load (wrk): two without a store, and one that keeps every
request in SQLite, or at `--url`, an empty database. With `--ui` a page is open at the third: the live feed is told of every answer.
CPU is that of the whole process, the writing thread's included, until nothing waits to be written; a Postgres server's own is not.

The two without a store are the same program, so what they differ by is what this run cannot see: on a machine that others use too, quote
both figures. To keep that small, rounds are short and take turns, proxies have one processor and the load another, and all three are
started anew `--starts` times, because where a process happens to lie in memory is worth a percent or two.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from passthrough import CONNECTIONS, HERE, config
from proxy import ROOT, machine, rss_mb, running
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from visa_proxy.engines.ports import free_port
from visa_proxy.store.writer import LINGER_S

NAMES = ("without", "without again", "with")
KEPT = NAMES[2]
REQUESTS = 1_000
"""Of one round, where the machine lets it: as many for each, because a proxy also costs something by the second."""
LOAD_S = 2
"""wrk takes so long in any case."""
STOP = "local seen = 0\nresponse = function() seen = seen + 1 if seen == %d then wrk.thread:stop() end end\n"
SETTLE_S = LINGER_S + 0.3
"""After a round: the store has written what it held back, and others waited as long."""
RESAMPLES = 2_000
PROCESSORS = sorted(os.sched_getaffinity(0))
console = Console()


@dataclass
class Found:
    """What was measured of one kind of proxy."""

    cpu_us: list[float] = field(default_factory=list)
    """Per request, of each round."""
    rss_mb: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0


@dataclass
class Seen:
    """What else happened at the third."""

    written: float = 0.0
    dropped: float = 0.0
    events: int = 0
    """Answers that the open page was told of."""


class Proxy:
    """A running one, and its CPU time."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        clock = ctypes.c_int()
        if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
            raise RuntimeError(f"the CPU clock of process {pid} cannot be read")
        self._clock = clock.value

    @property
    def cpu_s(self) -> float:
        """Of all its threads, to the nanosecond where /proc counts hundredths of a second."""
        return time.clock_gettime(self._clock)

    def counters(self) -> dict[str, float]:
        """Of its store; costs a few milliseconds of its CPU."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            said = re.findall(r"^(visa_store_\S+) (\S+)$", answer.read().decode(), re.MULTILINE)
        return {name: float(value) for name, value in said}

    def round(self, found: Found, script: Path) -> None:
        """Load, then rest until all is written. `script`: of wrk."""
        wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}s", "-s", str(script)]
        before = self.cpu_s
        output = subprocess.run([*wrk, f"{self.url}/v1/chat/completions"], capture_output=True, text=True, check=True).stdout
        while True:
            time.sleep(SETTLE_S)
            spent = self.cpu_s - before
            # Asked afterwards, so that no round pays for the question, except where it has to be put again.
            if not self.counters().get("visa_store_queue"):
                break
        requests = _number(r"(\d+) requests in", output)
        found.requests += requests
        found.failed += _number(r"Non-2xx or 3xx responses: (\d+)", output)
        found.cpu_us.append(spent / max(requests, 1) * 1e6)
        found.rss_mb.append(rss_mb(self.pid))


def _number(pattern: str, text: str) -> int:
    number = re.search(pattern, text)
    return int(number[1]) if number else 0


def measure(folder: Path, starts: int, rounds: int, url: str, *, page: bool) -> tuple[dict[str, Found], Seen]:
    """`starts` times `rounds` rounds of each kind."""
    found, seen = {name: Found() for name in NAMES}, Seen()
    script = folder / "post.lua"
    script.write_text((HERE / "post.lua").read_text() + STOP % REQUESTS)
    with Progress(console=console) as progress:
        task = progress.add_task("rounds", total=starts * rounds)
        for start in range(starts):
            with started(folder / str(start), url) as proxies:
                if page:
                    watch(proxies[KEPT], seen)
                for proxy in proxies.values():
                    proxy.round(Found(), script)  # the first one loads and compiles
                for number in range(rounds):
                    # Each comes first as often as the others, so that a machine that gets busier or hotter hurts all alike.
                    turn = number % len(NAMES)
                    for name in NAMES[turn:] + NAMES[:turn]:
                        proxies[name].round(found[name], script)
                    progress.advance(task)
                said = proxies[KEPT].counters()
                seen.written += said.get('visa_store_writes_total{result="written"}', 0.0)
                seen.dropped += said.get("visa_store_dropped_total", 0.0)
    return found, seen


@contextlib.contextmanager
def started(folder: Path, url: str) -> Iterator[dict[str, Proxy]]:
    """One proxy of each kind, on the first processor."""
    with contextlib.ExitStack() as stack:
        proxies = {}
        for name in NAMES:
            place, port = folder / name.replace(" ", "-"), free_port()
            place.mkdir(parents=True)
            file = config(place, port)
            if name == KEPT:
                file.write_text(f"{file.read_text()}store: {url}\n")
            with on_processor(0):
                pid = stack.enter_context(running("serve", "--config", str(file), port=port, log=place / "serve.log"))
            proxies[name] = Proxy(port, pid)
        yield proxies


def watch(proxy: Proxy, seen: Seen) -> None:
    """Somebody looks at the live feed until the proxy stops."""
    feed = urllib.request.urlopen(f"{proxy.url}/ui/api/feed", timeout=60)

    def look() -> None:
        with feed, contextlib.suppress(OSError, http.client.HTTPException):
            for line in feed:
                seen.events += line.startswith(b"event: answer")

    threading.Thread(target=look, daemon=True).start()


@contextlib.contextmanager
def on_processor(place: int) -> Iterator[None]:
    """This process, and what it starts meanwhile, has that one of the processors it may use; where there is one only, nothing changes."""
    may = sorted(os.sched_getaffinity(0))
    # This thread alone is moved; a process that it starts is where this thread is.
    os.sched_setaffinity(0, {PROCESSORS[place]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, may)


def interval(values: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.median) -> tuple[float, float]:
    """In which `of` lies in 95 of 100 bootstrap samples."""
    chance = random.Random(0)
    drawn = sorted(of(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return drawn[round(0.025 * RESAMPLES)], drawn[round(0.975 * RESAMPLES) - 1]


def report(found: dict[str, Found], seen: Seen, url: str, *, page: bool) -> float:
    """Prints it; the value is the median of the ratios of CPU per request, less one."""
    first, second, kept = (found[name] for name in NAMES)
    where = f"store in {url.partition(':')[0]}" + (" and an open page" if page else "")
    console.print(
        f"pass-through, {CONNECTIONS} connections, {machine()}; {len(kept.cpu_us)} rounds of at most {REQUESTS:,} requests; {where}"
    )
    table = Table("store", "requests", "CPU µs per request", "least", "RSS MB", "failed")
    for name, mine in found.items():
        cells = (f"{mine.requests:,}", f"{statistics.median(mine.cpu_us):,.0f}", f"{min(mine.cpu_us):,.0f}")
        table.add_row(name, *cells, f"{statistics.median(mine.rss_mb):,.0f}", str(mine.failed))
    console.print(table)
    pairs = list(zip(first.cpu_us, second.cpu_us, strict=True))
    ratios = [each / statistics.fmean(pair) - 1 for each, pair in zip(kept.cpu_us, pairs, strict=True)]
    same = [again / once - 1 for once, again in pairs]
    for what, listed in ((f"added by the {where}", ratios), ("of the two without, the one to the other", same)):
        low, high = interval(listed)
        console.print(f"CPU per request, {what}: median {statistics.median(listed):+.1%} (95 %: {low:+.1%} … {high:+.1%})")
    console.print(f"exposures written: {seen.written:,.0f}; dropped: {seen.dropped:,.0f}; told to the page: {seen.events:,}")
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="of all proxies")
    parser.add_argument("--rounds", type=int, default=8, help="after each start")
    parser.add_argument("--url", default="sqlite:///visa.db", help="of the store")
    parser.add_argument("--ui", action="store_true", help="with a page open at the proxy that has a store")
    options = parser.parse_args()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: it is in the system's packages (apt-get install {program})")
    with tempfile.TemporaryDirectory() as name, on_processor(-1):
        folder = Path(name)
        subprocess.run(["nginx", "-p", name, "-c", str(HERE / "upstream.conf")], check=True, cwd=ROOT)
        try:
            measured = measure(folder, options.starts, options.rounds, options.url, page=options.ui)
            report(*measured, options.url, page=options.ui)
        finally:
            nginx = folder / "upstream.pid"
            if nginx.exists():
                os.kill(int(nginx.read_text()), 15)


if __name__ == "__main__":
    main()
