"""The rewriter's server of several workers: the parent keeps the one there is, and each worker is told where it is."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from visa_proxy.errors import VisaError
from visa_proxy.policy.config import RewriterConfig, ServerConfig
from visa_proxy.server.engine import Engine, EngineState
from visa_proxy.server.reserved import own_adapter
from visa_proxy.server.workers.channel import Channel

logger = logging.getLogger("visa_proxy.workers")

FRESH_S: Final = 1.0
"""How old what is known of adapters may be."""


class EngineKeeper:
    """The parent's side."""

    def __init__(self, config: RewriterConfig, session: Any) -> None:
        """`config` has something to keep, see `Engine.needed`."""
        self._engine = Engine(config, session)
        self._starting: asyncio.Task[None] | None = None
        """Until it ends; None before it was needed, and after it failed."""
        self._failed = False
        self.handlers: dict[str, Callable[..., Any]] = {"engine.want": self._want, "engine.state": self._state}
        """What workers may ask, see `channel.answer`."""

    def for_workers(self, config: ServerConfig) -> ServerConfig:
        """The config with the rewriter's address in the place of how to keep it."""
        given = config.rewriter
        told = RewriterConfig(self._engine.address, model=own_adapter(given), style=given.style, timeout_s=given.timeout_s)
        return dataclasses.replace(config, rewriter=told)

    async def stop(self) -> None:
        """Nothing happens when it was never needed."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._engine.stop()

    def _want(self, models: frozenset[str]) -> None:
        self._engine.want(models)
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        """One that cannot be started is tried again when it is next wanted."""
        try:
            await self._engine.start()
            self._failed = False
        except Exception as error:
            message = str(error) if isinstance(error, VisaError) else type(error).__name__
            logger.error("the rewriter cannot be started: %s", message, exc_info=logger.isEnabledFor(logging.DEBUG))
            await self._engine.stop()  # what there is of it already
            self._failed = True
            self._starting = None

    def _state(self) -> EngineState | None:
        return self._engine.state if self._failed or self._starting is not None else None


class ParentEngine:
    """A worker's side."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._served: Mapping[str, str] = {}
        self._asked = -FRESH_S

    def want(self, models: frozenset[str]) -> None:
        """Policies need it, and name `models`: it is started unless it was."""
        self._channel.ask("engine.want", models)

    def state(self) -> EngineState | None:
        """None: none was needed yet."""
        found: EngineState | None = self._channel.ask("engine.state")
        self._served, self._asked = ({} if found is None else found.served), time.monotonic()
        return found

    def served(self) -> Mapping[str, str]:
        """Asked for once a second: versions stay for much longer."""
        if time.monotonic() - self._asked > FRESH_S:
            self.state()
        return self._served
