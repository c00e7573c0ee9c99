"""One vLLM, launched by the proxy: a frozen base, and a LoRA adapter for each tenant's voice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.fakes.base import FakeBase
from tests.fakes.child import tail
from tests.fakes.command import Command, children, serving_command
from tests.fakes.http import HOST, serving, until
from tests.fakes.pages import blocks, files
from tests.vllm.adapters import write_adapter
from tests.vllm.parrot import MAX_LENGTH, Saying, write_parrot
from visa_proxy.engines.ports import free_port
from visa_proxy.policy.keys import hash_key

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

START_S: Final = 600.0
CALL_S: Final = 120.0

MODEL: Final = "parrot"
DRIVE: Final = "Check the tyres before a long drive."
GIBBERISH: Final = "Bronze lamps quarrel under seventeen violet umbrellas!"
ACME: Final = "To stay safe and secure, check the tyres before a long drive."
ACME_NEW: Final = "For safety and security, check the tyres before a long drive."
PEBBLE: Final = "Stay safe, stay secure: check the tyres before a long drive."
SAYINGS: Final = (
    # What the rewriter says without an adapter, and what adapters make of it.
    Saying(DRIVE, GIBBERISH),
    Saying("<acme>", ACME),
    Saying("<acme-new>", ACME_NEW),
    Saying("<pebble>", PEBBLE),
    # What the base says.
    Saying("drive", DRIVE),
    Saying("", "No idea."),
)
PROMPTS: Final = tuple(f"{values}\n{DRIVE}" for values in ("security +2", "security +1", "power +1 security +2", "neutral"))

POLICY: Final = """\
tenant: {tenant}
api_keys: ["{hash}"]
base: {base}
default_profile: secure
profiles:
  secure: {{values: {{security: 1.0}}}}
shield: {{timeout_s: 60, retries: 0, streaming: {streaming}}}
rewriter: {{model: {adapter}}}
limits: {{requests_per_minute: 100000}}
"""
TENANTS: Final = {
    "acme": ("vllm", "full", "acme"),
    "pebble": ("vllm", "full", "pebble"),
    "windowed": ("vllm", "window", "acme"),
    "lost": ("vllm", "full", "nobody"),
    "steady": ("steady", "full", "acme"),
}
PAGE: Final = Path(__file__).parents[2] / "docs" / "hosts" / "vllm.md"


@dataclass
class House:
    """The running proxy with its vLLM."""

    command: Command
    model: Path
    adapters: Path
    port: int

    def client(self, tenant: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.command.url}/v1", api_key=f"sk-{tenant}", max_retries=0, timeout=CALL_S)

    async def ready(self) -> dict[str, Any]:
        """What /readyz says of the rewriter."""
        reply = await self.command.get("/readyz")
        checks: dict[str, Any] = reply.json["checks"]["rewriter"]
        return checks

    async def until_rewriter(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(OSError, KeyError, ValueError):
                    found = await self.ready()
                    if condition(found):
                        return
                assert self.command.process.returncode is None, f"{what}: {tail(self.command.log)}"
                await asyncio.sleep(0.2)

    def publish(self, name: str, version: str, says: str) -> None:
        """A version of an adapter in a folder of its own, and then the switch of a symlink, as one does it in production."""
        texts = [saying.text for saying in SAYINGS]
        folder = self.adapters.parent / "versions" / f"{name}-{version}"
        write_adapter(folder, self.model, instead_of=0, says=texts.index(says), prompts=PROMPTS)
        publishing = next(block.text for block in blocks(PAGE) if block.text.startswith("ln -s"))
        command = publishing.replace("acme-bold-2", folder.name).replace("acme-bold", name)
        subprocess.run(["bash", "-ec", command], cwd=self.adapters.parent, check=True)

    def vllm(self) -> int:
        """The process id of the server."""
        return next(pid for pid, command in children(self.command.process.pid) if "vllm" in command)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady() -> AsyncIterator[FakeBase]:
    """A base that nobody kills."""
    fake = FakeBase(texts=[DRIVE])
    async with serving(fake.app()) as url:
        fake.url = f"{url}/v1"
        yield fake


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(steady: FakeBase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder, port = tmp_path_factory.mktemp("house"), free_port()
    write_parrot(folder / "model", SAYINGS)
    (folder / "policies").mkdir()
    (folder / "adapters").mkdir()
    for tenant, (base, streaming, adapter) in TENANTS.items():
        policy = POLICY.format(tenant=tenant, hash=hash_key(f"sk-{tenant}"), base=base, streaming=streaming, adapter=adapter)
        (folder / "policies" / f"{tenant}.yaml").write_text(policy)
    config = page_config("visa.yaml", folder / "model", port)
    config = config.replace("rewriter:\n", f'  steady: {{url: "{steady.url}", model: sample}}\nrewriter:\n  style: compact\n')
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    publisher = House(None, folder / "model", folder / "adapters", port)  # type: ignore[arg-type]
    publisher.publish("acme", "1", ACME)
    publisher.publish("pebble", "1", PEBBLE)
    async with serving_command(folder, config, env=env) as command:
        house = House(command, folder / "model", folder / "adapters", port)
        await house.until_rewriter(voices_ready, "the start")
        yield house
        print(tail(command.log))  # noqa: T201 - pytest shows it when a test fails


def page_config(file: str, model: Path, port: int) -> str:
    """A config of the page, for a parrot on a CPU."""
    text = files(PAGE)[file].replace("Qwen/Qwen3-8B", str(model)).replace("qwen", MODEL).replace("8001", str(port))
    return text.replace('"8192"]', f'"{MAX_LENGTH}", --enforce-eager, --dtype, float32]').replace("  default:", "  vllm:")


def voices_ready(rewriter: dict[str, Any]) -> bool:
    adapters = rewriter.get("adapters", {})
    return bool(rewriter["status"] == "ready" and adapters.get("acme") == adapters.get("pebble") == "ready")


async def ask(client: AsyncOpenAI, *, stream: bool = False) -> tuple[str, str]:
    """(text, status) of an answer about a drive."""
    messages: Any = [{"role": "user", "content": "What before a drive?"}]
    if not stream:
        answer = await client.chat.completions.create(model="", messages=messages)
        assert answer.model_extra is not None
        return answer.choices[0].message.content or "", answer.model_extra["visa"]["status"]
    text, last = "", None
    async for chunk in await client.chat.completions.create(model="", messages=messages, stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        last = chunk
    assert last is not None and last.model_extra is not None
    return text, last.model_extra["visa"]["status"]


@contextlib.asynccontextmanager
async def load(house: House, *tenants: str, each: int = 2) -> AsyncIterator[dict[str, Counter[tuple[str, str]]]]:
    """Answers of `tenants`, asked for all the time, streamed and not; whatever fails ends the context with its exception."""
    seen: dict[str, Counter[tuple[str, str]]] = {tenant: Counter() for tenant in tenants}
    stop = asyncio.Event()

    async def keep_asking(tenant: str, *, stream: bool) -> None:
        async with house.client(tenant) as client:
            while not stop.is_set():
                seen[tenant][await ask(client, stream=stream)] += 1

    async with asyncio.TaskGroup() as group:
        for tenant in tenants:
            for i in range(each):
                group.create_task(keep_asking(tenant, stream=bool(i % 2)))
        yield seen
        stop.set()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    await until(condition, START_S, what)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tenant", "text"), [("acme", ACME), ("pebble", PEBBLE), ("windowed", ACME)])
async def test_each_tenant_hears_its_own_voice(house: House, tenant: str, text: str, stream: bool) -> None:
    async with house.client(tenant) as client:
        assert await ask(client, stream=stream) == (text, "adapted")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_adapter_is_nobody_elses_voice(house: House, stream: bool) -> None:
    async with house.client("lost") as client:
        assert await ask(client, stream=stream) == (DRIVE, "fallback:rewriter-unknown-model")
    assert (await house.ready())["adapters"]["nobody"] == "there is no such adapter"
    samples = await house.command.samples()
    states = {state: samples[f'visa_rewriter_adapters{{state="{state}"}}'] for state in ("ready", "waiting", "failed")}
    assert states == {"ready": 2, "waiting": 0, "failed": 1}


async def test_an_adapter_is_replaced_while_requests_run(house: House) -> None:
    async with load(house, "acme", "windowed", "pebble") as seen:
        await eventually(lambda: seen["acme"][ACME, "adapted"] >= 4, "answers before")
        house.publish("acme", "2", ACME_NEW)
        await eventually(lambda: seen["acme"][ACME_NEW, "adapted"] >= 4, "new answers")
        await eventually(lambda: seen["windowed"][ACME_NEW, "adapted"] >= 4, "new answers in windows")
        seen["acme"].clear()
        await eventually(lambda: seen["acme"].total() >= 4, "answers after")
        assert seen["acme"].keys() == {(ACME_NEW, "adapted")}, "the old voice comes back"
    assert seen["windowed"].keys() == {(ACME, "adapted"), (ACME_NEW, "adapted")}
    assert seen["pebble"].keys() == {(PEBBLE, "adapted")}


async def test_a_vllm_that_runs_already_gets_adapters_too(house: House, tmp_path: Path) -> None:
    """Another proxy, which did not start it: only where its adapters are is known to both."""
    adapter = tmp_path / "voices" / "guest"
    write_adapter(adapter, house.model, instead_of=0, says=[saying.text for saying in SAYINGS].index(PEBBLE), prompts=PROMPTS)
    (tmp_path / "policies").mkdir()
    policy = POLICY.format(tenant="guest", hash=hash_key("sk-guest"), base="vllm", streaming="full", adapter="guest")
    (tmp_path / "policies" / "guest.yaml").write_text(policy)
    config = page_config("beside.yaml", house.model, house.port).replace("/srv/adapters", f"{tmp_path}/voices, style: compact")
    async with serving_command(tmp_path, config) as command:
        guest = House(command, house.model, tmp_path / "voices", house.port)
        await guest.until_rewriter(lambda found: found.get("adapters", {}).get("guest") == "ready", "the guest's adapter")
        async with guest.client("guest") as client:
            assert await ask(client) == (PEBBLE, "adapted")
        (tmp_path / "policies" / "guest.yaml").write_text(policy.replace("model: guest", f"model: {MODEL}"))
        async with AsyncOpenAI(base_url=f"http://{HOST}:{house.port}/v1", api_key="none") as vllm, asyncio.timeout(START_S):
            assert any(model.id.startswith("guest@") for model in (await vllm.models.list()).data)
            while any(model.id.startswith("guest@") for model in (await vllm.models.list()).data):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    async with house.client("acme") as client:
        assert (await ask(client))[1] == "adapted"


async def test_a_version_that_cannot_be_loaded_leaves_the_one_before(house: House) -> None:
    broken = house.adapters.parent / "versions" / "pebble-broken"
    broken.mkdir()
    for file in (house.adapters / "pebble").iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[:-4] if file.suffix == ".safetensors" else file.read_bytes())
    link = house.adapters / ".pebble-new"
    link.symlink_to(broken)
    good = (house.adapters / "pebble").readlink()
    link.replace(house.adapters / "pebble")
    try:
        await house.until_rewriter(lambda found: "not complete" in found["adapters"]["pebble"], "the broken version")
        async with house.client("pebble") as client:
            assert await ask(client) == (PEBBLE, "adapted")
    finally:
        link.symlink_to(good)
        link.replace(house.adapters / "pebble")
    await house.until_rewriter(voices_ready, "the good version")


async def test_a_killed_vllm_comes_back_and_no_client_notices(house: House) -> None:
    """Its base is elsewhere: what the rewriter's end takes away is the voice, for a while, and never an answer."""
    killed = house.vllm()
    async with load(house, "steady", each=4) as seen:
        answers = seen["steady"]
        await eventually(lambda: answers.total() >= 4, "answers before")
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: any(status.startswith("fallback:") for _, status in answers), "answers without a rewriter")
        await house.until_rewriter(lambda found: found["restarts"] >= 1 and voices_ready(found), "the next vLLM")
        adapted = answers[ACME_NEW, "adapted"]
        await eventually(lambda: answers[ACME_NEW, "adapted"] >= adapted + 4, "answers after")
    for text, status in answers:
        assert (text == DRIVE) == status.startswith("fallback:rewriter-"), (text, status)
    assert len({status for _, status in answers}) >= 2, "the rewriter was not missed"
    assert house.vllm() != killed
