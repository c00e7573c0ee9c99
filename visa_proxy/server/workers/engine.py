"""The rewriter's server of several workers: the parent keeps the one there is, and each worker is told where it is."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from visa_proxy.policy.config import RewriterConfig, ServerConfig
from visa_proxy.server.engine import Engine, EngineState
from visa_proxy.server.workers.channel import Channel

logger = logging.getLogger("visa_proxy.workers")

FRESH_S: Final = 1.0
"""How old what is known of adapters may be."""


class Keeper:
    """The parent's side."""

    def __init__(self, config: RewriterConfig, session: Any) -> None:
        """`config` has something to keep, see `Engine.needed`."""
        self._engine = Engine(config, session)
        self._starting: asyncio.Task[None] | None = None
        self.handlers: dict[str, Callable[..., Any]] = {"engine.want": self._want, "engine.state": self._state}
        """What workers may ask, see `channel.answer`."""

    def for_workers(self, config: ServerConfig) -> ServerConfig:
        """The config with the rewriter's address in the place of how to keep it."""
        told = RewriterConfig(self._engine.address, style=config.rewriter.style, timeout_s=config.rewriter.timeout_s)
        return dataclasses.replace(config, rewriter=told)

    async def stop(self) -> None:
        """Nothing happens when it was never needed."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._engine.stop()

    def _want(self, models: frozenset[str]) -> None:
        self._engine.want(models)
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._engine.start())
            self._starting.add_done_callback(_report)

    def _state(self) -> EngineState | None:
        return None if self._starting is None else self._engine.state


def _report(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        logger.error("the rewriter cannot be started: %s", error)


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
