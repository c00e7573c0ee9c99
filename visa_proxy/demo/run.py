"""Starts the embedded default and says how to call it."""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from visa_proxy.demo.base import MODEL, SampleBase, create_base_app
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.engines.ports import free_port
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import Endpoint, ServerConfig
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.server.app import Proxy, create_app
from visa_proxy.server.run import make_server

START_S: Final = 120.0
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


async def run(
    *,
    host: str,
    port: int,
    policies: Path | None,
    base_url: str | None,
    base_model: str | None,
    base_key_env: str,
) -> None:
    """Serve until a signal comes. Raises ConfigError when the port is taken or the policies are wrong."""
    if base_url is not None and policies is None and host not in LOOPBACK:
        raise ConfigError([f"the keys of the example tenants are published: on {host} give policies of your own with --policies"])
    console = Console(stderr=True)
    with console.status("loading the encoder …"):
        encoder = await asyncio.to_thread(SentenceEncoder)
    base_port = free_port()
    if base_url is None:
        base = Endpoint(f"http://127.0.0.1:{base_port}/v1", model=MODEL)
    else:
        base = Endpoint(base_url.rstrip("/"), model=base_model, api_key=os.environ.get(base_key_env))
    # A demo leaves nothing behind: what it keeps goes with it.
    folder = tempfile.TemporaryDirectory(prefix="visa-demo-")
    store = f"sqlite:///{folder.name}/visa.db"
    config = ServerConfig(bases={"default": base}, policies=policies or example_policies(), host=host, port=port, store=store)
    proxy = create_app(config)
    server = make_server(proxy, host=host, port=port)
    sample = make_server(create_base_app(SampleBase(encoder)), host="127.0.0.1", port=base_port, guest=True)
    tasks = [asyncio.create_task(server.serve())]
    if base_url is None:
        tasks.append(asyncio.create_task(sample.serve()))
    try:
        with console.status("starting the rewriter …"):
            await _ready(proxy, tasks[0])
        console.print(banner(host, port, config, proxy), soft_wrap=True, highlight=False, markup=False)
        await tasks[0]
    finally:
        server.should_exit = sample.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)
        folder.cleanup()


async def _ready(proxy: Proxy, serving: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(START_S):
        while proxy.gateway is None:
            if serving.done():
                raise ConfigError(["the server did not start: is the port taken?"])
            await asyncio.sleep(0.05)
    engine = proxy.gateway.components.engine
    if engine is not None:
        await engine.wait_ready()


def example_policies() -> Path:
    """The three example tenants: inside an installed package, or `policies/` of the repository."""
    packaged = Path(str(importlib.resources.files("visa_proxy.demo") / "policies"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "policies"


def banner(host: str, port: int, config: ServerConfig, proxy: Proxy) -> str:
    """What is running, and a call to paste."""
    assert proxy.gateway is not None
    policies = proxy.gateway.watcher.current
    keys = {name: _key(policies, name) for name in policies.tenants}
    listed = "\n".join(f"  {name}  (key {keys[name]}, profiles {', '.join(t.profiles)})" for name, t in policies.tenants.items())
    first = next(iter(keys.values()), "YOUR_KEY")
    model = config.bases["default"].model or "your-model"
    # The page is for this machine, by these names.
    local = {"0.0.0.0": "127.0.0.1", "::": "localhost", "::1": "localhost"}.get(host, host)  # noqa: S104
    page = f"\nLook at it, and try voices out: http://{local}:{port}/ui\n" if local in LOOPBACK else ""
    return f"""
visa-proxy is answering on http://{host}:{port}/v1
{listed}
{page}
Paste this into another terminal:

  curl -s http://{host}:{port}/v1/chat/completions \\
    -H "Authorization: Bearer {first}" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "How should I plan my working day?"}}]}}'

Ctrl-C stops it.
"""


def _key(policies: PolicySet, name: str) -> str:
    """The published demo key, where it is the tenant's; a key of its own nobody can show."""
    published = f"sk-{name}-demo"
    tenant = policies.tenant_for_key(published)
    return published if tenant is not None and tenant.name == name else "YOUR_KEY"
