"""The LoRA adapters that a vLLM server has, kept like the folder they come from: one voice for each tenant that names one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.engines.adapters import Adapter, Folder, Source
from visa_proxy.errors import UpstreamError, VisaError
from visa_proxy.llm.base import Endpoint
from visa_proxy.tasks import end

logger = logging.getLogger("visa_proxy.engines")

INTERVAL_S: Final = 1.0
AGAIN_S: Final = 60.0
"""Before a version that the server refused is offered again."""
RETIRE_S: Final = 30.0
"""How long a version that was replaced stays: for requests that were about to name it, from whichever process."""
READY: Final = "ready"
WAITING: Final = "waiting for the server"
MISSING: Final = "there is no such adapter"


@dataclass(frozen=True)
class _Refused:
    """What the server said to a version."""

    served: str
    at: float
    why: str


class Voices:
    """Loads the adapters that policies name, each version under a name of its own, and retires those that nobody wants any more.

    Version `3f2a…` of the adapter `acme` is `acme@3f2a…` to the server, so that no other content ever answers to that name, whoever else
    loads adapters into it, and vLLM's prefix cache, which goes by names, never mixes two versions. It is why vLLM's `load_inplace` is
    not used: with it vLLM (0.32) reads the adapter from disk again at every step that uses it.
    """

    def __init__(self, server: Endpoint, source: Source, *, snapshots: Path | None = None) -> None:
        """`server` is vLLM's /v1, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.

        `snapshots`: a folder of ours that the server can read: what it loads is kept there, since it may read it again at any time and
        ends when it cannot. None: it reads the source itself, whose versions must stay there as long as they serve.
        """
        self._server = server
        self._folder = Folder(source)
        self._snapshots = snapshots
        self._wanted: frozenset[str] = frozenset()
        self._loaded: dict[str, float | None] = {}
        """By us, by its name at the server: when it was found to be wanted no longer, by the event loop's clock."""
        self._refused: dict[str, _Refused] = {}
        self._task: asyncio.Task[None] | None = None
        self.served: Mapping[str, str] = {}
        """What the server calls the version that serves, by adapter."""
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
        await end(self._task)
        self._task = None

    async def _keep_up(self) -> None:
        while True:
            try:
                await self._round()
            except Exception as error:
                # It must outlive whatever one round runs into.
                logger.error("adapters: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            await asyncio.sleep(INTERVAL_S)

    async def _round(self) -> None:
        found = await asyncio.to_thread(self._folder.scan)
        if not self._wanted and not self._loaded:
            return
        try:
            known = await self._known()
        except VisaError as error:
            self._note(dict.fromkeys(self._wanted, _trouble(error)))
            return
        states: dict[str, str] = {}
        for name in sorted(self._wanted):
            try:
                states[name] = await self._settle(name, found.get(name), known)
            except VisaError as error:
                states[name] = _trouble(error)
            except OSError as error:
                states[name] = f"cannot be read: {error.strerror or type(error).__name__}"
        self.served = {name: served for name, served in self.served.items() if name in self._wanted & found.keys()}
        self._note(states)
        await self._retire()

    async def _known(self) -> frozenset[str]:
        """What the server answers to."""
        listed = await self._server.json("/models", method="GET")
        try:
            return frozenset(card["id"] for card in listed["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UpstreamError("the server's list of models is garbled", code="upstream_garbled") from error

    async def _settle(self, name: str, found: Adapter | str | None, known: frozenset[str]) -> str:
        """Make the server know what the folder has under `name`; its state then."""
        if found is None:  # a model of the server's own, or an adapter that it was started with, needs no folder
            return READY if name in known else MISSING
        stays = "; its version before stays in force" if self.served.get(name) in known else ""
        if isinstance(found, str):
            return found + stays
        served = f"{name}@{found.digest}"
        if served not in known and (why := await self._offer(served, found)) is not None:
            return f"refused by the server: {why}{stays}"
        self.served = {**self.served, name: served}
        return READY

    async def _offer(self, served: str, adapter: Adapter) -> str | None:
        """Load a version. The value says why the server refused it, now or a moment ago."""
        now = asyncio.get_running_loop().time()
        refused = self._refused.get(adapter.name)
        if refused is not None and refused.served == served and now - refused.at < AGAIN_S:
            return refused.why
        path = await asyncio.to_thread(self._snapshot, served, adapter)
        why = await self._tell("/load_lora_adapter", {"lora_name": served, "lora_path": path})
        if why is not None:
            self._refused[adapter.name] = _Refused(served, now, why)
            return why
        self._refused.pop(adapter.name, None)
        self._loaded[served] = None
        logger.info("adapter %s loaded", served)
        return None

    def _snapshot(self, served: str, adapter: Adapter) -> str:
        """Where the server is to read a version. Raises OSError."""
        if self._snapshots is None:
            return str(adapter.path)
        folder = self._snapshots / served
        if not folder.is_dir():
            partial = self._snapshots / f".{served}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for file in adapter.path.iterdir():
                if file.is_file():
                    shutil.copyfile(file, partial / file.name)
            partial.rename(folder)
        return str(folder)

    async def _retire(self) -> None:
        """Unload what we loaded and nobody has wanted for a while."""
        now = asyncio.get_running_loop().time()
        for served, since in list(self._loaded.items()):
            if served in self.served.values():
                self._loaded[served] = None
            elif since is None:
                self._loaded[served] = now
            elif now - since >= RETIRE_S:
                with contextlib.suppress(VisaError):
                    await self._tell("/unload_lora_adapter", {"lora_name": served})
                del self._loaded[served]
                if self._snapshots is not None:
                    await asyncio.to_thread(shutil.rmtree, self._snapshots / served, ignore_errors=True)
                logger.info("adapter %s unloaded", served)

    async def _tell(self, path: str, body: dict[str, Any]) -> str | None:
        """Why not, or None; a good answer of vLLM is no JSON. Raises UpstreamError when there is none."""
        async with self._server.request("POST", path, body=orjson.dumps(body)) as answer:
            raw = await answer.read()
            if answer.status == 404 and b"adapter" not in raw.lower():  # there is no such URL
                return "it does not load adapters: it was started without VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            return None if answer.status < 300 else self._server.error(answer.status, raw).message[:300]

    def _note(self, states: dict[str, str]) -> None:
        for name, state in states.items():
            if state != self.states.get(name) and state not in (READY, WAITING):
                logger.error("adapter %s: %s", name, state)
        self.states = states


def _trouble(error: VisaError) -> str:
    """What to say of a server that does not answer; while it starts that is nothing unusual."""
    return WAITING if error.status in (503, 504) else f"the server answers with an error: {error.message[:300]}"
