"""What a passed-through request costs: CPU per request and memory, beside smg in the same run.

    python benchmarks/passthrough.py [--rounds 5] [--seconds 4]
    python benchmarks/passthrough.py --stream [--rounds 5] [--streams 32]

The first needs nginx (the static upstream) and wrk (the load) from the system's packages. The second measures CPU per chunk of a streamed
answer: 300 chunks, 20 ms apart, on so many streams at once. smg (`pip install smg`, any environment) is measured when the program is on
PATH or named by the variable SMG. Rounds alternate between the two; the medians and the ratio are what to quote.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import chunks
from proxy import ROOT, cpu_s, machine, rss_mb, running
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visa_proxy.engines.ports import free_port

HERE = Path(__file__).parent
CONNECTIONS = 32
UPSTREAM_PORT = 9000
WARM_UP_S = 2
console = Console()


@dataclass(frozen=True)
class Round:
    """One burst of load against one gateway."""

    requests_per_s: float
    cpu_us: float
    rss_mb: float
    failed: int


def burst(url: str, pid: int, seconds: int) -> Round:
    """wrk for `seconds`, after a warm-up."""
    wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", "-s", str(HERE / "post.lua"), f"{url}/v1/chat/completions"]
    subprocess.run([*wrk, f"-d{WARM_UP_S}s"], capture_output=True, check=True)
    before = cpu_s(pid)
    output = subprocess.run([*wrk, f"-d{seconds}s"], capture_output=True, text=True, check=True).stdout
    spent = cpu_s(pid) - before
    requests = int(_number(r"(\d+) requests in", output))
    failed = int(_number(r"Non-2xx or 3xx responses: (\d+)", output))
    return Round(_number(r"Requests/sec:\s+([\d.]+)", output), spent / max(requests, 1) * 1e6, rss_mb(pid), failed)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def config(folder: Path, port: int) -> Path:
    """A visa.yaml with one tenant that passes through; key, tenant, limits and metrics are all in force."""
    digest = hashlib.sha256(b"sk-test").hexdigest()
    (folder / "policies").mkdir()
    (folder / "policies" / "bench.yaml").write_text(
        f'tenant: bench\napi_keys: ["sha256:{digest}"]\ndefault_profile: off\nprofiles: {{off: passthrough}}\n'
        "limits: {requests_per_minute: 1000000000, concurrent: 10000}\n"
    )
    path = folder / "visa.yaml"
    path.write_text(f"server: {{port: {port}}}\nbases: {{default: {{url: 'http://127.0.0.1:9000/v1'}}}}\n")
    return path


def start_smg(program: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [program, "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", "http://127.0.0.1:9000"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    body = b'{"model":"base","messages":[{"role":"user","content":"x"}]}'
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"Content-Type": "application/json"})
    for _ in range(600):
        try:
            urllib.request.urlopen(request, timeout=2).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return process
    process.kill()
    raise RuntimeError(f"smg did not answer: {log.read_text(errors='replace')[-1000:]}")


@dataclass(frozen=True)
class StreamRound:
    """So many streamed answers through one gateway."""

    cpu_us: float
    """Per chunk that was delivered."""
    events: int
    lost: int
    reads: int
    rss_mb: float


def stream_burst(url: str, pid: int, streams: int) -> StreamRound:
    """One answer on each of `streams` connections, after a warm-up."""
    port = int(url.rpartition(":")[2])
    chunks.read(port, streams=streams, answers=streams)
    before = cpu_s(pid)
    count = chunks.read(port, streams=streams, answers=streams)
    spent = cpu_s(pid) - before
    lost = streams * chunks.CHUNKS - count.events
    return StreamRound(spent / max(count.events, 1) * 1e6, count.events, lost, count.reads, rss_mb(pid))


def stream_report(rounds: dict[str, list[StreamRound]], streams: int) -> None:
    ours = rounds["visa-proxy"]
    head = f"pass-through of streams, {streams} at once, {chunks.CHUNKS} chunks {chunks.APART_S * 1000:g} ms apart"
    console.print(f"{head}, {machine()}; medians of {len(ours)} rounds")
    table = Table("gateway", "CPU µs per chunk", "chunks", "lost", "reads by the clients", "RSS MB")
    for name, mine in rounds.items():
        middle = [statistics.median(cell) for cell in ([row.cpu_us for row in mine], [row.rss_mb for row in mine])]
        counts = (sum(row.events for row in mine), sum(row.lost for row in mine), sum(row.reads for row in mine))
        table.add_row(name, f"{middle[0]:.1f}", *(f"{count:,}" for count in counts), f"{middle[1]:,.0f}")
    console.print(table)
    compare("CPU per chunk", ours, rounds.get("smg", []))


def compare(what: str, ours: Sequence[Round | StreamRound], theirs: Sequence[Round | StreamRound]) -> None:
    ratios = [mine.cpu_us / other.cpu_us for mine, other in zip(ours, theirs, strict=False)]
    if ratios:
        console.print(f"{what}, visa-proxy / smg: median {statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})")


def report(rounds: dict[str, list[Round]]) -> None:
    console.print(f"pass-through, {CONNECTIONS} connections, {machine()}; medians of {len(rounds['visa-proxy'])} rounds")
    table = Table("gateway", "requests/s", "CPU µs per request", "RSS MB", "failed")
    for name, mine in rounds.items():
        cells = [[row.requests_per_s for row in mine], [row.cpu_us for row in mine], [row.rss_mb for row in mine]]
        table.add_row(name, *(f"{statistics.median(cell):,.0f}" for cell in cells), str(sum(row.failed for row in mine)))
    console.print(table)
    compare("CPU per request", rounds["visa-proxy"], rounds.get("smg", []))


@contextlib.contextmanager
def gateways(folder: Path) -> Iterator[dict[str, tuple[str, int]]]:
    """URL and process id of what is measured, in front of the upstream on port 9000."""
    port, smg = free_port(), os.environ.get("SMG") or shutil.which("smg")
    with running("serve", "--config", str(config(folder, port)), port=port, log=folder / "serve.log") as pid:
        targets = {"visa-proxy": (f"http://127.0.0.1:{port}", pid)}
        if smg is None:
            yield targets
            return
        other = free_port()
        process = start_smg(smg, other, folder / "smg.log")
        try:
            yield {**targets, "smg": (f"http://127.0.0.1:{other}", process.pid)}
        finally:
            process.terminate()
            process.wait(10)


def measure_streams(folder: Path, rounds: int, streams: int) -> None:
    with chunks.sender(UPSTREAM_PORT, folder / "sender.log"), gateways(folder) as targets:
        found: dict[str, list[StreamRound]] = {target: [] for target in targets}
        for _ in track(range(rounds), description="rounds", console=console):
            for target, (url, pid) in targets.items():
                found[target].append(stream_burst(url, pid, streams))
    stream_report(found, streams)


def measure_requests(folder: Path, rounds: int, seconds: int) -> None:
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: it is in the system's packages (apt-get install {program})")
    subprocess.run(["nginx", "-p", str(folder), "-c", str(HERE / "upstream.conf")], check=True, cwd=ROOT)
    try:
        with gateways(folder) as targets:
            found: dict[str, list[Round]] = {target: [] for target in targets}
            for _ in range(rounds):
                for target, (url, pid) in targets.items():
                    found[target].append(burst(url, pid, seconds))
        report(found)
    finally:
        nginx = folder / "upstream.pid"
        if nginx.exists():
            os.kill(int(nginx.read_text()), 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load per round")
    parser.add_argument("--stream", action="store_true", help="streamed answers: CPU per chunk")
    parser.add_argument("--streams", type=int, default=CONNECTIONS, help="at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.stream:
            measure_streams(Path(name), options.rounds, options.streams)
        else:
            measure_requests(Path(name), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
