"""The rewriter served by `transformers serve`: no GPU, no compiler, one command."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp

from visa_proxy.engines.ports import HOST
from visa_proxy.engines.supervisor import Supervisor
from visa_proxy.errors import VisaError
from visa_proxy.llm.http import HttpEndpoint
from visa_proxy.optional import installed


def serve_command(model: str, port: int) -> list[str]:
    """`transformers serve` for one preloaded model, in this interpreter. Raises MissingExtra without transformers."""
    installed("transformers", extra="local")
    program = str(Path(sys.executable).with_name("transformers"))
    return [program, "serve", model, "--host", HOST, "--port", str(port), "--device", "cpu"]


def supervise(
    model: str, port: int, session: aiohttp.ClientSession, *, log: Path, start_timeout_s: float, threads: int | None = None
) -> Supervisor:
    """A supervisor for the server of `model` on `port`. `threads`: of the child's tensor operations; None leaves it to torch."""
    health = HttpEndpoint(session, f"http://{HOST}:{port}", timeout_s=5.0, name="rewriter")

    async def probe() -> bool:
        try:
            await health.json("/health", method="GET")
        except VisaError:
            return False
        return True

    env = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}  # the model is a directory: no hub
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    return Supervisor("rewriter", serve_command(model, port), probe=probe, env=env, log=log, startup_timeout_s=start_timeout_s)
