"""A real vLLM server (CPU build) for a model of the tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.fakes.child import Child, running
from visa_proxy.engines.ports import HOST, free_port

START_S: Final = 400.0
"""Far beyond what vLLM takes (half a minute of two idle cores), for machines that do other work."""
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}


def serving_vllm(
    model: Path, *arguments: str, names: Sequence[str], max_length: int, log: Path, env: Mapping[str, str] | None = None
) -> AbstractContextManager[Child]:
    """vLLM with the weights in the folder `model`, which it calls `names`, in float32 as everything it is compared with."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", *names]
    command += ["--host", HOST, "--port", str(port), "--max-model-len", str(max_length), "--enforce-eager", "--dtype", "float32"]
    return running(
        [*command, *arguments],
        url=f"http://{HOST}:{port}",
        ready="/health",
        log=log,
        env={**OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1", **(env or {})},
        timeout_s=START_S,
    )
