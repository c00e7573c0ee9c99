"""A second tenant, beside the one that a proxy is started with."""

from __future__ import annotations

import asyncio
import time

from tests.fakes.policies import policy, write
from tests.fakes.proxy import Running

OTHER = {"Authorization": "Bearer sk-other"}


async def with_other(proxy: Running, **settings: str) -> Running:
    """The proxy, when it has read the policy of a second tenant; `settings` as `policy` takes them."""
    write(proxy.policies, policy(tenant="other", key="sk-other", **settings), "other.yaml")
    deadline = time.monotonic() + 5
    while (await proxy.get("/v1/models", OTHER)).status == 401:
        assert time.monotonic() < deadline, "the second tenant was not read"
        await asyncio.sleep(0.02)
    return proxy
