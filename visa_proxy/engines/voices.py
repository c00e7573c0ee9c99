"""The LoRA adapters that a vLLM server has, kept like the folder they come from: one voice for each tenant that names one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.engines.adapters import Adapter, Folder, Source
from visa_proxy.errors import UpstreamUnavailable, VisaError
from visa_proxy.llm.base import Endpoint

logger = logging.getLogger("visa_proxy.engines")

INTERVAL_S: Final = 1.0
AGAIN_S: Final = 60.0
"""Before a version that the server refused is offered again."""
WAITING: Final = "waiting for the server"
MISSING: Final = "there is no such adapter"
READY: Final = "ready"


@dataclass(frozen=True)
class _Refused:
    """What the server said to a version."""

    digest: str
    at: float
    why: str


class Voices:
    """Loads the adapters that policies name, loads changed ones in place, unloads those that nobody names any more.

    An adapter under the name of a tenant is only ever that tenant's: a version that cannot be loaded leaves the one before in force,
    and where there is none the server does not know the name, so that requests for it fall back.
    """

    def __init__(self, server: Endpoint, source: Source, *, links: Path | None = None) -> None:
        """`server` is vLLM's /v1, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1. `links`: a folder of ours that the server can read.

        vLLM's prefix cache tells adapters by name and path, so every version is loaded from a path of its own: a link in `links`, or,
        without that, the folder behind the symlink by which whoever publishes adapters switches from one to the next.
        """
        self._server = server
        self._folder = Folder(source)
        self._links = links
        self._wanted: frozenset[str] = frozenset()
        self._loaded: dict[str, Adapter] = {}
        self._refused: dict[str, _Refused] = {}
        self._task: asyncio.Task[None] | None = None
        self.states: Mapping[str, str] = {}
        """Of each wanted name: "ready", or what is the matter."""

    def want(self, names: Collection[str]) -> None:
        """Models and adapters that policies name now."""
        self._wanted = frozenset(names)

    def ranks(self) -> list[int]:
        """Of the adapters there are. Reads files: not for an event loop."""
        return [found.rank for found in self._folder.scan().values() if isinstance(found, Adapter)]

    def start(self) -> None:
        """Keep up from now on."""
        self._task = asyncio.get_running_loop().create_task(self._keep_up(), name="keep adapters")

    async def stop(self) -> None:
        """What is loaded stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep_up(self) -> None:
        while True:
            try:
                await self._round()
            except VisaError:
                self._note(dict.fromkeys(self._wanted, WAITING))
            except Exception as error:
                # It must outlive whatever one round runs into.
                logger.error("adapters: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            await asyncio.sleep(INTERVAL_S)

    async def _round(self) -> None:
        found = await asyncio.to_thread(self._folder.scan)
        if not self._wanted and not self._loaded:
            return
        served = await self._served()
        for name in self._loaded.keys() - (self._wanted & found.keys()):
            await self._unload(name)
        self._note({name: await self._settle(name, found.get(name), served) for name in sorted(self._wanted)})

    async def _served(self) -> dict[str, str]:
        """What the server answers to, with the path of each."""
        listed = await self._server.json("/models", method="GET")
        try:
            return {card["id"]: str(card.get("root")) for card in listed["data"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise UpstreamUnavailable("the server's list of models is garbled") from error

    async def _settle(self, name: str, found: Adapter | str | None, served: Mapping[str, str]) -> str:
        """Make what the server has under `name` what the folder has; its state then."""
        loaded = self._loaded.get(name)
        stays = "; its version before stays in force" if name in served else ""
        if isinstance(found, str):
            return found + stays
        if found is None:  # a model of the server's own, or an adapter that it was started with, needs no folder
            return READY if name in served else MISSING
        if name in served and loaded is not None and loaded.digest == found.digest:
            return READY
        path = self._path(found)
        if name in served and served[name] == path:
            if loaded is None:  # by us, before this process began, or by whoever started it
                self._loaded[name] = found
                return READY
            return "changed in place: publish a new version as a new folder, and switch a symlink to it"
        refused = self._refused.get(name)
        now = asyncio.get_running_loop().time()
        if refused is None or refused.digest != found.digest or now - refused.at > AGAIN_S:
            why = await self._load(name, path, again=name in served)
            if why is None:
                self._loaded[name] = found
                self._refused.pop(name, None)
                return READY
            refused = self._refused[name] = _Refused(found.digest, now, why)
        return f"refused by the server: {refused.why}{stays}"

    def _path(self, adapter: Adapter) -> str:
        if self._links is None:
            return str(adapter.path)
        self._links.mkdir(parents=True, exist_ok=True)
        link = self._links / f"{adapter.name}-{adapter.digest}"
        if not link.is_symlink() or link.readlink() != adapter.path:
            link.unlink(missing_ok=True)
            link.symlink_to(adapter.path)
        return str(link)

    async def _load(self, name: str, path: str, *, again: bool) -> str | None:
        """Why the server refused, or None."""
        why = await self._tell("/load_lora_adapter", {"lora_name": name, "lora_path": path, "load_inplace": again})
        if why is None:
            logger.info("adapter %s loaded from %s", name, path)
        return why

    async def _unload(self, name: str) -> None:
        why = await self._tell("/unload_lora_adapter", {"lora_name": name})
        del self._loaded[name]
        logger.info("adapter %s unloaded%s", name, "" if why is None else f": {why}")

    async def _tell(self, path: str, body: dict[str, Any]) -> str | None:
        """Why not, or None; a good answer of vLLM is no JSON. Raises UpstreamError when there is none."""
        async with self._server.request("POST", path, body=orjson.dumps(body)) as answer:
            raw = await answer.read()
            return None if answer.status < 300 else self._server.error(answer.status, raw).message[:300]

    def _note(self, states: dict[str, str]) -> None:
        for name, state in states.items():
            if state != self.states.get(name) and state not in (READY, WAITING):
                logger.error("adapter %s: %s", name, state)
        self.states = states
