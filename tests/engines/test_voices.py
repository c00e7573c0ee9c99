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
        """At least three more looks at the folder."""
        for _ in range(3):
            self.voices.states = {}
            await until(lambda: bool(self.voices.states), 5, "a round")


@contextlib.asynccontextmanager
async def kept(
    folder: Path, *, snapshots: bool = True, wanted: tuple[str, ...] = ("acme",), server: LoraServer | None = None
) -> AsyncIterator[Kept]:
    server = server or LoraServer()
    async with serving(server.app()) as url, new_session() as session:
        endpoint = HttpEndpoint(session, f"{url}/v1", timeout_s=5)
        voices = Voices(endpoint, folder / "live", snapshots=folder / "snapshots" if snapshots else None)
        voices.want(wanted)
        voices.start()
        try:
            yield Kept(voices, server, folder / "live")
        finally:
            await voices.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.engines.voices.INTERVAL_S", 0.02)
    monkeypatch.setattr("visa_proxy.engines.voices.RETIRE_S", 0.2)


@pytest.mark.parametrize("snapshots", [True, False])
async def test_only_those_that_policies_name_are_loaded(tmp_path: Path, snapshots: bool) -> None:
    for name in ("acme", "pebble", "other"):
        publish(tmp_path / "live" / name)
    async with kept(tmp_path, snapshots=snapshots, wanted=("acme", "base", "nobody")) as it:
        await it.state("acme", READY)
        assert it.voices.states == {"acme": READY, "base": READY, "nobody": MISSING}
        assert set(it.voices.served) == {"acme"} and it.voices.served["acme"].startswith("acme@")
        it.voices.want({"pebble"})
        await it.state("pebble", READY)
        await until(lambda: set(it.server.models) == {"base", it.voices.served["pebble"]}, 5, "the end of acme")
        assert [name.partition("@")[0] for name in it.server.loaded()] == ["acme", "pebble"]


async def test_every_version_has_a_name_of_its_own_and_the_one_before_stays_a_while(tmp_path: Path) -> None:
    """Requests that were about to name it still do; and vLLM's prefix cache, which goes by names, mixes nothing."""
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        first = it.voices.served["acme"]
        publish(tmp_path / "live" / "acme", seed=2)
        await until(lambda: it.voices.served["acme"] != first, 5, "the next version")
        assert first in it.server.models
        await until(lambda: first not in it.server.models, 5, "the end of the first version")
        publish(tmp_path / "live" / "acme", seed=1)
        await until(lambda: it.voices.served["acme"] == first, 5, "the first version again")
        assert first in it.server.models


async def test_what_the_server_reads_stays_when_its_source_goes(tmp_path: Path) -> None:
    """It may read an adapter again at any time, and ends when it cannot."""
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        path = Path(it.server.models[it.voices.served["acme"]])
        shutil.rmtree(tmp_path / "live" / "acme")
        assert sorted(file.name for file in path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]  # noqa: ASYNC240
        await it.state("acme", MISSING)
        assert it.voices.served == {}
        await until(lambda: set(it.server.models) == {"base"} and not path.exists(), 5, "the end of acme")


async def test_a_symlink_is_followed(tmp_path: Path) -> None:
    for version in (1, 2):
        publish(tmp_path / "versions" / str(version), seed=version)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "acme").symlink_to(tmp_path / "versions" / "1")
    async with kept(tmp_path, snapshots=False) as it:
        await it.state("acme", READY)
        (tmp_path / "new").symlink_to(tmp_path / "versions" / "2")
        (tmp_path / "new").replace(tmp_path / "live" / "acme")
        await until(lambda: it.server.models.get(it.voices.served["acme"], "").endswith("/2"), 5, "the second version")


async def test_two_proxies_with_the_same_folder_share_what_one_has_loaded(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path, snapshots=False) as one, kept(tmp_path, snapshots=False, server=one.server):
        await one.state("acme", READY)
        async with serving(one.server.app()) as url, new_session() as session:
            other = Voices(HttpEndpoint(session, f"{url}/v1"), tmp_path / "live")
            other.want({"acme"})
            other.start()
            await until(lambda: other.states.get("acme") == READY, 5, "the other proxy")
            publish(tmp_path / "live" / "acme", seed=2)
            for voices in (one.voices, other):
                await until(lambda voices=voices: len(one.server.loaded()) >= 2 and voices.states["acme"] == READY, 5, "both")  # type: ignore[misc]
            await until(lambda: one.voices.served == other.served, 5, "the same version")
            await other.stop()


async def test_another_content_under_the_same_name_is_never_taken_for_it(tmp_path: Path) -> None:
    """Two proxies with folders of their own: each tenant keeps its own voice."""
    for owner, seed in (("a", 1), ("b", 2)):
        publish(tmp_path / owner / "live" / "acme", seed=seed)
    server = LoraServer()
    async with kept(tmp_path / "a", server=server) as a, kept(tmp_path / "b", server=server) as b:
        await a.state("acme", READY)
        await b.state("acme", READY)
        assert a.voices.served["acme"] != b.voices.served["acme"]
        assert {a.voices.served["acme"], b.voices.served["acme"]} < set(server.models)


async def test_a_server_that_starts_again_gets_its_adapters_back(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        it.server.down = True
        await it.state("acme", WAITING)
        it.server.models.pop(it.voices.served["acme"])
        it.server.down = False
        await it.state("acme", READY)
        assert it.server.loaded() == [it.voices.served["acme"]] * 2


async def test_a_server_that_does_not_let_us_says_so(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path, server=LoraServer(key="sk-other")) as it:
        await it.state("acme", "the server answers with an error: Unauthorized")
    async with kept(tmp_path, server=LoraServer(updating=False)) as it:
        await it.state("acme", lambda found: "without VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in str(found))


async def test_one_that_cannot_be_loaded_holds_up_no_other(tmp_path: Path) -> None:
    for name in ("acme", "pebble"):
        publish(tmp_path / "live" / name)
    async with kept(tmp_path, wanted=("acme", "pebble"), server=LoraServer(refuse={"acme": "no"})) as it:
        await it.state("pebble", READY)
        assert it.voices.states["acme"] == "refused by the server: no"


async def test_a_version_that_the_server_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "live" / "acme", seed=1)
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        first, it.server.refuse = it.voices.served["acme"], {"acme": "rank 64 is greater than max_lora_rank 16"}
        publish(tmp_path / "live" / "acme", seed=2)
        await it.state("acme", lambda found: str(found).startswith("refused by the server: rank 64"))
        assert "its version before stays in force" in it.voices.states["acme"]
        assert it.voices.served["acme"] == first
        tried = len(it.server.told)
        await it.rounds()
        assert len(it.server.told) == tried, "it is not offered again at once"
        it.server.refuse = {}
        monkeypatch.setattr("visa_proxy.engines.voices.AGAIN_S", 0.0)
        await it.state("acme", READY)
        assert it.voices.served["acme"] != first


async def test_a_broken_version_leaves_the_one_before(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        first = it.voices.served["acme"]
        weights = tmp_path / "live" / "acme" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
        await it.state("acme", lambda found: "not complete; its version before stays in force" in str(found))
        await it.rounds()
        assert it.voices.served["acme"] == first and first in it.server.models
        assert len(it.server.told) == 1


async def test_a_folder_that_cannot_be_read_for_a_moment_takes_nothing_away(tmp_path: Path) -> None:
    publish(tmp_path / "live" / "acme")
    async with kept(tmp_path) as it:
        await it.state("acme", READY)
        (tmp_path / "live").rename(tmp_path / "away")
        (tmp_path / "live").write_text("not a folder")
        await it.rounds()
        assert it.voices.states["acme"] == READY
        assert len(it.server.told) == 1
