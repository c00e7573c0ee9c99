"""The sample base model as a process of its own, for the scripts here.

python benchmarks/sample_base.py --port 9000 [--tokens-per-s 50]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from proxy import ROOT, wait_for

from visa_proxy.demo.base import SampleBase, create_base_app
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.server.run import make_server


@contextlib.contextmanager
def sample_base(port: int, log: Path, *, tokens_per_s: float | None = None) -> Iterator[str]:
    """Its URL, until the context ends. `tokens_per_s`: the pace of streamed answers; None: as fast as they are read."""
    pace = [] if tokens_per_s is None else ["--tokens-per-s", str(tokens_per_s)]
    # One thread: finding an answer must not take the processor from what is measured.
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "--port", str(port), *pace],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models", process, log, ready=lambda answer: "data" in answer)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens-per-s", type=float)
    options = parser.parse_args()
    app = create_base_app(SampleBase(SentenceEncoder()), tokens_per_s=options.tokens_per_s)
    asyncio.run(make_server(app, host="127.0.0.1", port=options.port).serve())


if __name__ == "__main__":
    main()
