"""What a passed-through request costs: CPU per request and memory, beside smg in the same run.

    python benchmarks/passthrough.py [--rounds 5] [--seconds 4]

Needs nginx (the static upstream) and wrk (the load) from the system's packages; smg (`pip install smg`, any environment) is measured when
the program is on PATH or named by the variable SMG. Rounds alternate between the two; the medians and the ratio are what to quote.
"""

from __future__ import annotations

import argparse
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
from dataclasses import dataclass
from pathlib import Path

from proxy import ROOT, cpu_s, free_port, machine, rss_mb, running
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CONNECTIONS = 32
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


def report(rounds: dict[str, list[Round]]) -> None:
    console.print(f"pass-through, {CONNECTIONS} connections, {machine()}; medians of {len(rounds['visa-proxy'])} rounds")
    table = Table("gateway", "requests/s", "CPU µs per request", "RSS MB", "failed")
    for name, mine in rounds.items():
        cells = [[row.requests_per_s for row in mine], [row.cpu_us for row in mine], [row.rss_mb for row in mine]]
        table.add_row(name, *(f"{statistics.median(cell):,.0f}" for cell in cells), str(sum(row.failed for row in mine)))
    console.print(table)
    if "smg" in rounds:
        ratios = [ours.cpu_us / theirs.cpu_us for ours, theirs in zip(rounds["visa-proxy"], rounds["smg"], strict=True)]
        console.print(
            f"CPU per request, visa-proxy / smg: median {statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: it is in the system's packages (apt-get install {program})")
    smg = os.environ.get("SMG") or shutil.which("smg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["nginx", "-p", name, "-c", str(HERE / "upstream.conf")], check=True, cwd=ROOT)
        children: list[subprocess.Popen[bytes]] = []
        try:
            port = free_port()
            path = config(folder, port)
            targets: dict[str, tuple[str, int]] = {}
            with running("serve", "--config", str(path), port=port, log=folder / "serve.log") as pid:
                targets["visa-proxy"] = (f"http://127.0.0.1:{port}", pid)
                if smg is not None:
                    other = free_port()
                    children.append(start_smg(smg, other, folder / "smg.log"))
                    targets["smg"] = (f"http://127.0.0.1:{other}", children[-1].pid)
                rounds: dict[str, list[Round]] = {target: [] for target in targets}
                for _ in range(options.rounds):
                    for target, (url, target_pid) in targets.items():
                        rounds[target].append(burst(url, target_pid, options.seconds))
            report(rounds)
        finally:
            for child in children:
                child.terminate()
                child.wait(10)
            nginx = folder / "upstream.pid"
            if nginx.exists():
                os.kill(int(nginx.read_text()), 15)


if __name__ == "__main__":
    main()
