"""The rewriter's server, as far as it is ours to keep: its process, where we launch it, and the LoRA adapters in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from visa_proxy.engines import transformers, vllm
from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.engines.supervisor import Supervisor
from visa_proxy.engines.voices import Voices
from visa_proxy.policy.config import BUNDLED, Endpoint, Inner, Launch, RewriterConfig
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.server.endpoints import open_endpoint
from visa_proxy.server.types import App


@dataclass(frozen=True)
class EngineState:
    """How the rewriter's server is."""

    launched: bool
    """It is a child process of ours; else only its adapters are ours to keep."""
    ready: bool = True
    """A launched one serves."""
    restarts: int = 0
    """How often a launched one was started again."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Model or adapter that a policy names to "ready", or what is the matter."""
    served: Mapping[str, str] = field(default_factory=dict)
    """What the server calls the version of an adapter that serves now."""


class Owner(Protocol):
    """Another process that keeps the rewriter's server."""

    def want(self, models: frozenset[str]) -> None:
        """Policies need it, and name `models`: it is started unless it was."""
        ...

    def state(self) -> EngineState | None:
        """None: there is none to keep, or none was needed yet."""
        ...

    def served(self) -> Mapping[str, str]:
        """What the server calls the version of an adapter that serves; not much older than a second."""
        ...


class Engine:
    """One per `visa-proxy serve`, whatever its workers."""

    def __init__(self, config: RewriterConfig, session: Any, *, inner: App | None = None) -> None:
        """`config` has something to keep, see `needed`. `inner`: the app of the server we run in."""
        self._config = config
        self._session = session
        self._inner = inner
        self._port = 0 if config.launch is None else config.launch.port or free_port()
        self._folder: Path | None = None
        self._supervisor: Supervisor | None = None
        self._voices: Voices | None = None
        self._models: frozenset[str] = frozenset()

    @staticmethod
    def needed(config: RewriterConfig) -> bool:
        """Whether there is a process or an adapter to keep."""
        return config.launch is not None or config.adapters is not None

    @property
    def address(self) -> Endpoint | Inner:
        """Where the server is, with the model that is asked when a policy names none."""
        config = self._config
        if config.launch is None:
            assert config.endpoint is not None, "RewriterConfig holds an endpoint or a launch"
            return config.endpoint
        model = config.model or served_name(config.launch)
        return Endpoint(f"http://{HOST}:{self._port}/v1", model, timeout_s=config.timeout_s)

    @property
    def state(self) -> EngineState:
        """As it is now."""
        voices, child = self._voices, self._supervisor
        return EngineState(
            launched=self._config.launch is not None,
            ready=self._config.launch is None or (child is not None and child.ready),
            restarts=0 if child is None else child.restarts,
            adapters={} if voices is None else voices.states,
            served={} if voices is None else voices.served,
        )

    async def start(self) -> None:
        """Returns at once. Raises EngineError, or MissingExtra, when there is nothing to start it with."""
        config = self._config
        self._folder = Path(tempfile.mkdtemp(prefix="visa-proxy-"))
        address, adapters = self.address, config.adapters
        if adapters is not None:
            server = open_endpoint(address, self._session, inner=self._inner, name="rewriter")
            # A server of ours reads what we can read; of another one we know only that it sees the folder.
            snapshots = None if config.launch is None else self._folder / "adapters"
            self._voices = Voices(server, adapters, snapshots=snapshots)
            self._voices.want(self._models)
        if config.launch is not None:
            self._supervisor = await self._supervise(config.launch)
            await self._supervisor.start()
        if self._voices is not None:
            self._voices.start()

    async def wait_ready(self) -> None:
        """Raises EngineError when a launched one is not ready within its start-up time."""
        if self._supervisor is not None:
            await self._supervisor.wait_ready()

    async def stop(self) -> None:
        """Ends a launched one. Nothing happens when it was never started."""
        if self._voices is not None:
            await self._voices.stop()
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def want(self, models: Collection[str]) -> None:
        """Models and adapters that policies name, see `named`; where they name none, the rewriter's own."""
        own = self._config.model or (None if self._config.endpoint is None else self._config.endpoint.model)
        self._models = frozenset(models) | ({own} if own else frozenset())
        if self._voices is not None:
            self._voices.want(self._models)

    async def _supervise(self, launch: Launch) -> Supervisor:
        assert self._folder is not None
        log = self._folder / "rewriter.log"
        model, start_timeout_s = _path(launch), launch.start_timeout_s
        if launch.engine == "transformers":
            # The bundled model is too small to share its work out: more threads only wait for each other, and for the encoder's.
            threads = 1 if launch.model == BUNDLED else None
            return transformers.supervise(
                model, self._port, self._session, log=log, start_timeout_s=start_timeout_s, threads=threads
            )
        ranks = None if self._voices is None else await asyncio.to_thread(self._voices.ranks)
        command = vllm.serve_command(
            model,
            self._port,
            served_model_name=launch.served_model_name,
            ngram=launch.speculation == "ngram",
            ranks=ranks,
            args=launch.args,
            python=launch.python,
        )
        return vllm.supervise(command, served_name(launch), self._port, self._session, log=log, start_timeout_s=start_timeout_s)


def named(policies: PolicySet) -> frozenset[str]:
    """The models and adapters of the rewriter that policies name."""
    return frozenset(tenant.rewriter_model for tenant in policies.tenants.values() if tenant.rewriter_model is not None)


def _path(launch: Launch) -> str:
    return str(BUNDLED_MODEL) if launch.model == BUNDLED else launch.model


def served_name(launch: Launch) -> str:
    """What a launched server calls its model."""
    return launch.served_model_name or _path(launch)
