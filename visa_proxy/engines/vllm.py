"""The rewriter served by vLLM: many requests at once, a LoRA adapter for each tenant."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from visa_proxy.engines.ports import HOST
from visa_proxy.engines.supervisor import Supervisor
from visa_proxy.errors import VisaError
from visa_proxy.llm.http import HttpEndpoint
from visa_proxy.optional import installed

PROBE_S: Final = 5.0
WATCH_S: Final = 20.0
"""For one token, also when others wait for theirs."""

NGRAM: Final[dict[str, Any]] = {"method": "ngram", "num_speculative_tokens": 10, "prompt_lookup_min": 1, "prompt_lookup_max": 4}
"""A rewriter copies most of its input, so the words that followed the same words there are guessed to come next. Each guess is checked
by the model itself, which leaves the text as it is; benchmarks/rewriter.py measures what it saves."""

_TOKENS: Final = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
_RANKS: Final = (16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank, from its default on."""
_AT_ONCE: Final = 8
"""Adapters in one batch at most; each takes memory of the size of the largest rank."""


def serve_command(
    model: str,
    port: int,
    *,
    served_model_name: str | None = None,
    ngram: bool = True,
    ranks: Collection[int] | None = None,
    args: Sequence[str] = (),
    python: str | None = None,
) -> list[str]:
    """The OpenAI server of vLLM for `model`, in the interpreter `python`; None: this one.

    `ranks` are those of the LoRA adapters known now, None when there will never be any. What `args` say wins.
    Raises MissingExtra when this interpreter has no vLLM.
    """
    if python is None:
        installed("vllm", extra="vllm")
    given = {arg.partition("=")[0].replace("_", "-") for arg in args}
    options: dict[str, str | None] = {"--served-model-name": served_model_name} if served_model_name else {}
    if ngram:
        options["--speculative-config"] = json.dumps(NGRAM)
    if ranks is not None:
        largest = max(ranks, default=0)
        options |= {
            "--enable-lora": None,
            "--max-lora-rank": str(next((rank for rank in _RANKS if rank >= largest), _RANKS[-1])),
            "--max-loras": str(min(_AT_ONCE, max(2, len(ranks)))),
            "--max-cpu-loras": str(max(4 * _AT_ONCE, len(ranks))),
        }
    words = [word for name, value in options.items() if name not in given for word in (name, value) if word is not None]
    program = [python or sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    # A line for each request would fill the disk, and nobody reads it.
    quiet = ["--disable-uvicorn-access-log"]
    return [*program, "--model", model, "--host", HOST, "--port", str(port), *quiet, *words, *args]


def supervise(
    command: Sequence[str], model: str, port: int, session: aiohttp.ClientSession, *, log: Path, start_timeout_s: float
) -> Supervisor:
    """A supervisor for `command`, which serves `model` on `port`.

    It is ready when vLLM says so, and hangs when it no longer generates: its health answers even when its engine stands still. One that
    has no time for another token, since it generates for others, does not hang.
    """
    server = f"http://{HOST}:{port}"
    health = HttpEndpoint(session, server, timeout_s=PROBE_S, name="rewriter")
    patient = HttpEndpoint(session, server, timeout_s=WATCH_S, name="rewriter")

    async def probe() -> bool:
        try:
            async with health.request("GET", "/health") as answer:
                return answer.status == 200
        except VisaError:
            return False

    generated = ""

    async def watch() -> bool:
        nonlocal generated
        with contextlib.suppress(VisaError):
            await patient.json("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0})
            return True
        with contextlib.suppress(VisaError):
            async with health.request("GET", "/metrics") as answer:
                lines = (await answer.read()).decode(errors="replace").splitlines()
            before, generated = generated, "".join(line for line in lines if line.startswith(_TOKENS))
            return generated != before
        return False

    env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    if "HF_TOKEN" in os.environ:  # the hub's own name for the key to its models
        env["HF_TOKEN"] = os.environ["HF_TOKEN"]
    return Supervisor("rewriter", command, probe=probe, watch=watch, env=env, log=log, startup_timeout_s=start_timeout_s)
