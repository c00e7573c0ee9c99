"""A real LiteLLM proxy, in an environment of its own: what it needs does not go together with what the tests need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from tests.fakes.child import Child, running
from tests.fakes.http import HOST
from visa_proxy.engines.ports import free_port

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = ROOT / ".venv-litellm" / "bin" / "litellm"
KEY: Final = "sk-litellm-1234"
START_S: Final = 150.0
ENV: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it looks for prices on the network
    "LITELLM_MASTER_KEY": KEY,
    "DISABLE_ADMIN_UI": "True",
    "OMP_NUM_THREADS": "1",
}


@contextlib.asynccontextmanager
async def litellm_proxy(folder: Path, config: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """`litellm --config`, run in `folder`, once it answers. Raises RuntimeError, with the end of its log, when it does not."""
    assert COMMAND.exists(), f"{COMMAND} is not there: `make test` installs it"
    (folder / "config.yaml").write_text(config)
    port = free_port()
    command = [str(COMMAND), "--config", str(folder / "config.yaml"), "--host", HOST, "--port", str(port)]
    with contextlib.ExitStack() as stack:
        server = running(
            command,
            url=f"http://{HOST}:{port}",
            ready="/health/liveliness",
            log=folder / "litellm.log",
            env={**ENV, **(env or {})},
            timeout_s=START_S,
        )
        child = await asyncio.to_thread(stack.enter_context, server)
        try:
            yield child
        finally:
            await asyncio.to_thread(stack.close)
