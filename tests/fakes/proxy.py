"""The product itself on a port of its own: nothing in here is fake but where it listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvicorn
from openai import AsyncOpenAI

from tests.fakes.http import HOST, closed_port, until
from tests.fakes.policies import KEY, policy, write
from visa_proxy.policy.config import Endpoint, RewriterConfig, ServerConfig
from visa_proxy.server.app import Proxy, create_app
from visa_proxy.server.components import Instruments
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.run import make_server

BASE_KEY = "sk-secret-of-the-base"


@dataclass
class Running:
    """A started proxy and ways to talk to it."""

    url: str
    """Without /v1."""
    proxy: Proxy
    server: uvicorn.Server
    serving: asyncio.Task[None]
    policies: Path
    http: aiohttp.ClientSession
    """For where bytes matter; sends the tenant's key, and nothing is decompressed or followed."""
    client: AsyncOpenAI

    @property
    def gateway(self) -> Gateway:
        assert self.proxy.gateway is not None
        return self.proxy.gateway

    async def post(self, body: Any, headers: dict[str, str] | None = None, path: str = "/v1/chat/completions") -> Reply:
        """POST bytes or JSON."""
        given = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.post(
            self.url + path, headers={"Content-Type": "application/json", **(headers or {})}, **given
        ) as got:
            return Reply(got.status, got.headers, await got.read())

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        async with self.http.get(self.url + path, headers=headers) as got:
            return Reply(got.status, got.headers, await got.read())


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Any
    """Case-insensitive."""
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def config_for(base_url: str, rewriter_url: str | None, policies: Path, *, base_timeout_s: float, **changes: Any) -> ServerConfig:
    """One base that wants a key, and a rewriter by URL (one that is down, where none is given)."""
    url = rewriter_url or f"http://{HOST}:{closed_port()}/v1"
    settings: dict[str, Any] = {
        "bases": {"default": Endpoint(base_url, api_key=BASE_KEY, timeout_s=base_timeout_s)},
        "rewriter": RewriterConfig(Endpoint(url, model="fake", timeout_s=30.0)),
        **changes,
    }
    return ServerConfig(policies=policies, **settings)


@contextlib.asynccontextmanager
async def running(
    config: ServerConfig, instruments: Instruments | None = None, *, drain_s: float = 5.0
) -> AsyncIterator[Running]:
    """Serves until the context is left."""
    proxy = create_app(config, instruments=instruments)
    server = make_server(proxy, host=HOST, port=0, drain_s=drain_s, guest=True)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done(), 30, "the server's start")
    assert server.started, "the server did not start"
    url = f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    session = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {KEY}"}, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=20)
    )
    client = AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, timeout=20)
    try:
        async with session, client:
            yield Running(url, proxy, server, task, config.policies, session, client)
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task


class Starter(contextlib.AsyncExitStack):
    """Starts proxies that end with the test."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def __call__(
        self,
        base_url: str,
        rewriter_url: str | None = None,
        *,
        text: str | None = None,
        instruments: Instruments | None = None,
        base_timeout_s: float = 20.0,
        drain_s: float = 5.0,
        **config: Any,
    ) -> Running:
        """`text`: the tenant's policy."""
        write(self._folder, policy() if text is None else text)
        settings = config_for(base_url, rewriter_url, self._folder, base_timeout_s=base_timeout_s, **config)
        return await self.enter_async_context(running(settings, instruments, drain_s=drain_s))
