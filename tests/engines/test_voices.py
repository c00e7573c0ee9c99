"""Adapters of a vLLM kept like their folder; tests/vllm has the real server."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.adapters import LoraServer, publish
from tests.fakes.http import serving, until
from visa_proxy.engines.voices import MISSING, READY, WAITING, Voices
from visa_proxy.llm.http import HttpEndpoint, new_session


@dataclass
class Kept:
    """Voices that are kept, their server and their folder."""

    voices: Voices
    server: LoraServer
    folder: Path

    async def state(self, name: str, is_it: Callable[[str | None], bool] | str) -> None:
        """Waits until `name` is in a state."""
        wanted = is_it if callable(is_it) else lambda found: found == is_it
        await until(lambda: wanted(self.voices.states.get(name)), 5, f"{name}: {self.voices.states}")

    async def rounds(self) -> None:
        """At least two more looks at the folder."""
        self.voices.states = {}
        await until(lambda: bool(self.voices.states), 5, "a round")
        self.voices.states = {}
        await until(lambda: bool(self.voices.states), 5, "another round")


@contextlib.asynccontextmanager
async def kept(
    folder: Path, *, links: bool, wanted: tuple[str, ...] = ("acme",), server: LoraServer | None = None
) -> AsyncIterator[Kept]:
    server = server or LoraServer()
    async with serving(server.app()) as url, new_session() as session:
        voices = Voices(HttpEndpoint(session, f"{url}/v1"), folder / "live", links=folder / "links" if links else None)
        voices.want(wanted)
        voices.start()
        try:
            yield Kept(voices, server, folder / "live")
        finally:
            await voices.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.engines.voices.INTERVAL_S", 0.02)


@pytest.mark.parametrize("links", [True, False])
async def test_only_those_that_policies_name_are_loaded(tmp_path: Path, links: bool) -> None:
    for name in ("acme", "pebble", "other"):
        publish(tmp_path / "live" / name)
    async with kept(tmp_path, links=links, wanted=("acme", "base", "nobody")) as it:
        await it.state("acme", READY)
        assert it.voices.states == {"acme": READY, "base": READY, "nobody": MISSING}
        it.voices.want({"pebble"})
        await it.state("pebble", READY)
        await until(lambda: set(it.server.models) == {"base", "pebble"}, 5, "the end of acme")
        assert it.server.loaded() == [("acme", False), ("pebble", False)]


async def test_every_version_has_a_path_of_its_own(tmp_path: Path) -> None:
    """vLLM's prefix cache tells adapters by name and path: the same path again would bring the old voice back."""
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path, links=True) as it:
        await it.state("acme", READY)
        first = it.server.models["acme"]
        publish(tmp_path / "live" / "acme", seed=2)
        await until(lambda: it.server.models["acme"] != first, 5, "the next version")
        assert it.server.loaded() == [("acme", False), ("acme", True)]
        publish(tmp_path / "live" / "acme", seed=1)
        await until(lambda: it.server.models["acme"] == first, 5, "the first version again")
        await it.state("acme", READY)


async def test_another_server_follows_a_symlink(tmp_path: Path) -> None:
    for version in (1, 2):
        publish(tmp_path / "versions" / str(version), seed=version)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "acme").symlink_to(tmp_path / "versions" / "1")
    async with kept(tmp_path, links=False) as it:
        await it.state("acme", READY)
        (tmp_path / "new").symlink_to(tmp_path / "versions" / "2")
        (tmp_path / "new").replace(tmp_path / "live" / "acme")
        await until(lambda: it.server.models["acme"].endswith("/2"), 5, "the second version")
        assert it.server.loaded() == [("acme", False), ("acme", True)]


async def test_another_server_is_not_told_of_a_change_in_place(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path, links=False) as it:
        await it.state("acme", READY)
        publish(tmp_path / "live" / "acme", seed=2)
        await it.state("acme", lambda found: "changed in place" in str(found))
        assert len(it.server.told) == 1


async def test_what_another_proxy_has_loaded_is_not_loaded_again(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    server = LoraServer(models={"base": "/models/base", "acme": str(tmp_path / "live" / "acme")})
    async with kept(tmp_path, links=False, server=server) as it:
        await it.state("acme", READY)
        assert it.server.told == []


async def test_a_server_that_starts_again_gets_its_adapters_back(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path, links=True) as it:
        await it.state("acme", READY)
        it.server.down = True
        await it.state("acme", WAITING)
        it.server.models.pop("acme")
        it.server.down = False
        await it.state("acme", READY)
        assert it.server.loaded() == [("acme", False), ("acme", False)]


async def test_a_version_that_the_server_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path, links=True) as it:
        await it.state("acme", READY)
        first, it.server.refuse = it.server.models["acme"], "rank 64 is greater than max_lora_rank 16"
        publish(tmp_path / "live" / "acme", seed=2)
        await it.state("acme", lambda found: str(found).startswith("refused by the server: rank 64"))
        assert "its version before stays in force" in it.voices.states["acme"]
        assert it.server.models["acme"] == first
        tried = len(it.server.told)
        await it.rounds()
        assert len(it.server.told) == tried, "it is not offered again at once"
        it.server.refuse = None
        monkeypatch.setattr("visa_proxy.engines.voices.AGAIN_S", 0.0)
        await it.state("acme", READY)
        assert it.server.models["acme"] != first


async def test_a_broken_version_leaves_the_one_before(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path, links=True) as it:
        await it.state("acme", READY)
        weights = tmp_path / "live" / "acme" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
        await it.state("acme", lambda found: "not complete" in str(found))
        assert "acme" in it.server.models
        assert len(it.server.told) == 1


async def test_an_adapter_whose_folder_is_gone_is_unloaded(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path, links=True) as it:
        await it.state("acme", READY)
        shutil.rmtree(tmp_path / "live" / "acme")
        await it.state("acme", MISSING)
        assert "acme" not in it.server.models
