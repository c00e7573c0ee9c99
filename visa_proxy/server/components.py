"""The four components, built from the config when a policy first needs them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visa_proxy.detector.base import Detector
from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.llm.http import new_session
from visa_proxy.llm.instrument import Open, Settings, not_opened
from visa_proxy.optional import installed
from visa_proxy.policy.config import BUNDLED, ComponentConfig, Endpoint, Inner, ServerConfig, load_config
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.server.endpoints import open_endpoint
from visa_proxy.server.engine import Engine, EngineState, Owner, named
from visa_proxy.server.types import App
from visa_proxy.shield.pipeline import Shield
from visa_proxy.translator.base import Translator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instruments:
    """What measures: the three components beside the rewriter. Safe to share between proxies of one process."""

    detector: Detector
    translator: Translator
    facts: FactAnalyzer


class Components:
    """Loads models off the event loop, once. A proxy whose policies only pass through never loads any."""

    def __init__(
        self,
        config: ServerConfig,
        session: Any,
        instruments: Instruments | None = None,
        *,
        models: frozenset[str] = frozenset(),
        inner: App | None = None,
        owner: Owner | None = None,
    ) -> None:
        """`instruments`: loaded ones to share; None loads them when they are needed. `models`: of the rewriter, that policies name.

        `inner`: the app of the server we run in. `owner`: another process that keeps the rewriter's server; None: this one does.
        """
        self._config = config
        self._session = session
        self._instruments = instruments
        self._loading: asyncio.Task[Shield] | None = None
        self._inner = inner
        self._models = models
        self._owner = owner
        self.engine: Engine | None = None
        """The rewriter's server, once it was started, where there is something of it to keep."""

    @property
    def engine_state(self) -> EngineState | None:
        """How the rewriter's server is; None where nothing of it is ours to keep, or none was needed yet."""
        if self._owner is not None:
            return self._owner.state()
        return None if self.engine is None else self.engine.state

    @property
    def shield(self) -> Shield | None:
        """Ready to use, or None while loading or not needed."""
        task = self._loading
        return task.result() if task is not None and task.done() and not task.cancelled() and not task.exception() else None

    @property
    def state(self) -> str:
        """not needed | loading | ready | failed: <type>"""
        task = self._loading
        if task is None:
            return "not needed"
        if not task.done():
            return "loading"
        error = None if task.cancelled() else task.exception()
        return "ready" if error is None else f"failed: {type(error).__name__}"

    async def ensure(self) -> Shield:
        """The shield, loaded now if it is not yet. Raises ConfigError or MissingExtra when that fails."""
        if self._idle:
            self._loading = self._start()
        assert self._loading is not None
        return await asyncio.shield(self._loading)

    def follow(self, policies: PolicySet) -> None:
        """Start loading in the background when a reloaded policy needs what was not needed before; keep the adapters they name."""
        self._models = named(policies)
        if self.engine is not None:
            self.engine.want(self._models)
        if self._idle and needs_shield(policies):
            self._loading = self._start()
            self._loading.add_done_callback(_report)

    def _start(self) -> asyncio.Task[Shield]:
        return asyncio.get_running_loop().create_task(self._load(), name="load components")

    @property
    def _idle(self) -> bool:
        """Nothing was loaded yet, or loading failed: what was missing then may be there now."""
        task = self._loading
        return task is None or (task.done() and (task.cancelled() or task.exception() is not None))

    async def close(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
        if self.engine is not None:
            await self.engine.stop()

    async def _load(self) -> Shield:
        rewriter = await self._rewriter()
        found = self._instruments
        if found is None:
            found = await asyncio.to_thread(self._load_instruments)
        return Shield(found.detector, found.translator, found.facts, rewriter)

    async def _rewriter(self) -> ChatRewriter:
        if self.engine is not None:  # of an attempt to load that failed later on
            await self.engine.stop()
            self.engine = None
        config = self._config.rewriter
        address: Endpoint | Inner | None = config.endpoint
        if Engine.needed(config):
            self.engine = Engine(config, self._session, inner=self._inner)
            self.engine.want(self._models)
            await self.engine.start()
            address = self.engine.address
        assert address is not None, "RewriterConfig holds an endpoint or a launch"
        endpoint = open_endpoint(address, self._session, inner=self._inner, name="rewriter")
        return ChatRewriter(endpoint, model=address.model or "", style=config.style, served=self._served)

    def _served(self, model: str) -> str:
        """What the rewriter's server calls a model or adapter now."""
        if self._owner is not None:
            return self._owner.served().get(model, model)
        return model if self.engine is None else self.engine.state.served.get(model, model)

    def _load_instruments(self) -> Instruments:
        # Imported here: they bring torch along, and a pass-through proxy has no use for it.
        from visa_proxy.detector.load import load_detector
        from visa_proxy.facts.load import load_facts
        from visa_proxy.translator.load import load_translator

        config = self._config
        return Instruments(
            load_detector(_settings(config.detector), self._opener("detector", config.detector)),
            load_translator(_settings(config.translator), self._opener("translator", config.translator)),
            load_facts(_settings(config.facts)),
        )

    def _opener(self, name: str, component: ComponentConfig) -> Open:
        address = component.endpoint
        return not_opened if address is None else lambda: open_endpoint(address, self._session, name=name)


def needs_shield(policies: PolicySet) -> bool:
    """Whether any profile, or any caller's instruction, can ask for a rewrite."""
    return any(
        tenant.request_instruction or not all(profile.passthrough for profile in tenant.profiles.values())
        for tenant in policies.tenants.values()
    )


def check_installed(config: ServerConfig) -> None:
    """Raises MissingExtra, naming the pip line, when what this config runs in or under this process is not installed."""
    for module in ("torch", "transformers", "safetensors"):
        installed(module, extra="local")
    launch = config.rewriter.launch
    if launch is not None and launch.engine == "transformers":
        for module in ("requests", "fastapi"):  # what `transformers serve` imports
            installed(module, extra="demo")
    elif launch is not None and launch.python is None:
        installed("vllm", extra="vllm")
    elif launch is not None and shutil.which(launch.python or "") is None:
        raise ConfigError([f"rewriter.launch.python: there is no program {launch.python}"])


def _settings(component: ComponentConfig) -> Settings:
    return Settings(
        kind=component.kind,
        path="" if component.path == BUNDLED else component.path,
        spaces=component.spaces,
        model=(component.endpoint.model or "") if component.endpoint is not None else "",
        explain=component.explain,
    )


def _report(task: asyncio.Task[Shield]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("components cannot be loaded: %s", error)


@contextlib.asynccontextmanager
async def standalone(path: Path | None = None) -> AsyncIterator[Shield]:
    """A shield of its own, outside any server: that of a visa.yaml, or the bundled one. Waits until a launched rewriter serves."""
    config = load_config(path) if path is not None else ServerConfig(bases={}, policies=Path())
    async with new_session() as session:
        components = Components(config, session)
        try:
            shield = await components.ensure()
            if components.engine is not None:
                await components.engine.wait_ready()
            yield shield
        finally:
            await components.close()
