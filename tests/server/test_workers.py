"""`visa-proxy serve --workers 2` as real processes: one proxy to whoever asks, also while workers die."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, never
from tests.fakes.command import Command, alive, children, serving_command
from tests.fakes.http import until
from tests.fakes.policies import plain, policy, write
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import load_config

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
REQUESTS = 'visa_requests_total{code="%s",endpoint="/v1/chat/completions",tenant="plain"}'


def config(base: str, rewriter: str, server: str = "{drain_s: 5}") -> str:
    return f'server: {server}\nbases: {{default: {{url: "{base}"}}}}\nrewriter: {{url: "{rewriter}", model: fake}}\n'


@contextlib.asynccontextmanager
async def two(
    folder: Path, base: FakeBase, rewriter: str = "http://127.0.0.1:9/v1", *, text: str | None = None
) -> AsyncIterator[Command]:
    """Two workers that are ready. `text`: the tenant's policy."""
    (folder / "policies").mkdir()
    write(folder / "policies", plain() if text is None else text)
    async with serving_command(folder, config(base.url, rewriter), "--workers", "2") as command:
        await command.ready(2)
        yield command


async def test_each_worker_answers_and_all_count_together(tmp_path: Path, base: FakeBase) -> None:
    async with two(tmp_path, base) as command:
        for share, pid in enumerate(command.workers(), start=3):
            with command.only(pid):
                for _ in range(share):
                    reply = await command.post(ASK)
                    assert (reply.status, reply.json["choices"][0]["message"]["content"]) == (200, ANSWER)
        for pid in command.workers():
            with command.only(pid):
                samples = await command.samples()
                assert samples[REQUESTS % 200] == 7
                assert samples['visa_request_duration_seconds_count{endpoint="/v1/chat/completions"}'] == 7
                assert samples["visa_requests_in_flight"] == 0
                assert not [name for name in samples if "pid=" in name]
                assert (await command.get("/healthz")).json == {"status": "ok"}


async def test_limits_hold_over_all_workers(tmp_path: Path, base: FakeBase) -> None:
    async with two(tmp_path, base, text=plain(limits="{requests_per_minute: 12, concurrent: 3}")) as command:
        base.answer = never
        held = []
        for pid in (*command.workers(), command.workers()[0]):
            with command.only(pid):
                held.append(asyncio.create_task(command.post(ASK)))
                await until(lambda: base.running == len(held))
        for pid in command.workers():
            with command.only(pid):
                refused = await command.post(ASK)
                assert refused.status == 429 and "more than 3 requests at once" in refused.json["error"]["message"]
        for request in held:
            request.cancel()
        await until(lambda: base.running == 0)
        base.answer = None
        deadline = time.monotonic() + 5
        while (await command.samples())["visa_requests_in_flight"]:
            assert time.monotonic() < deadline, "the slots do not come back"
        begun = time.monotonic()
        statuses = await _by_four(command, 40)
        refilled = (time.monotonic() - begun + 10) * 12 / 60
        assert 12 - 3 <= statuses[200] <= 12 - 3 + refilled and statuses[200] + statuses[429] == 40
        assert "12 requests a minute" in (await command.post(ASK)).json["error"]["message"]


async def _by_four(command: Command, count: int) -> Counter[int]:
    """Statuses of `count` requests, four at a time."""
    statuses: Counter[int] = Counter()
    for _ in range(0, count, 4):
        statuses.update(reply.status for reply in await asyncio.gather(*(command.post(ASK) for _ in range(4))))
    return statuses


async def test_a_killed_worker_gives_its_slots_back(tmp_path: Path, base: FakeBase) -> None:
    async with two(tmp_path, base, text=plain(limits="{concurrent: 2}")) as command:
        first, second = command.workers()
        base.answer = never
        with command.only(first):
            held = [asyncio.create_task(command.post(ASK)) for _ in range(2)]
            await until(lambda: base.running == 2)
        with command.only(second):
            assert (await command.post(ASK)).status == 429
        os.kill(first, signal.SIGKILL)
        assert all(isinstance(lost, aiohttp.ClientError) for lost in await asyncio.gather(*held, return_exceptions=True))
        base.answer = None
        with command.only(second):
            await until(lambda: not alive(first))
            deadline = time.monotonic() + 2
            while (reply := await command.post(ASK)).status == 429:
                assert time.monotonic() < deadline, "the slots of a dead worker are held"
        assert reply.status == 200
        await command.ready(2)
        assert (await command.samples())["visa_requests_in_flight"] == 0
        assert "worker 0 ended with code -9; starting again" in command.log.read_text()


async def test_a_worker_is_killed_under_load(tmp_path: Path, base: FakeBase) -> None:
    """What it was answering fails; nothing else does, and no counter goes down."""
    async with two(tmp_path, base, text=plain(limits="{requests_per_minute: 1000000}")) as command:
        answered: Counter[object] = Counter()
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                try:
                    answered[(await command.post(ASK)).status] += 1
                except aiohttp.ClientError as error:
                    answered[type(error)] += 1

        askers = [asyncio.create_task(ask()) for _ in range(4)]
        before: dict[str, float] = {}
        victims = command.workers()
        for victim in victims:
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                with contextlib.suppress(aiohttp.ClientError):
                    samples = await command.samples()
                    gauges = ("visa_requests_in_flight", "visa_policy_problems", "visa_rewriter")
                    counters = {name: value for name, value in samples.items() if not name.startswith(gauges)}
                    assert not [name for name, value in before.items() if counters[name] < value]
                    before = counters
            os.kill(victim, signal.SIGKILL)
            await until(functools.partial(_replaced, command, victim), 10, "another worker")
        stop.set()
        await asyncio.gather(*askers)
        await command.ready(2)
        assert not set(victims) & set(command.workers())
        failed = sum(count for what, count in answered.items() if what != 200)
        assert answered[200] > 100 and failed <= 2 * len(askers), answered
        counted = (await command.samples())[REQUESTS % 200]
        # One that is killed between an answer and its count leaves that one out.
        assert answered[200] - len(victims) <= counted <= answered[200] + failed
        assert counted >= before[REQUESTS % 200]


def _replaced(command: Command, victim: int) -> bool:
    return victim not in command.workers() and len(command.workers()) == 2


async def test_requests_in_flight_are_answered_before_the_end(tmp_path: Path, base: FakeBase) -> None:
    async with two(tmp_path, base) as command:
        workers, folder = command.workers(), folder_of(command)
        base.hold = asyncio.Event()
        asking = asyncio.create_task(command.post({**ASK, "stream": True}))
        await until(lambda: base.running == 1)
        command.process.terminate()
        await asyncio.sleep(0.5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await command.get("/healthz")
        assert not asking.done()
        base.hold.set()
        reply = await asking
        assert reply.status == 200 and reply.body.endswith(b"data: [DONE]\n\n")
        assert await command.process.wait() == 0
        assert not [pid for pid in workers if alive(pid)]
        assert not folder.exists()


async def test_no_worker_outlives_a_killed_parent(tmp_path: Path, base: FakeBase) -> None:
    async with two(tmp_path, base) as command:
        workers, folder = command.workers(), folder_of(command)
        command.process.kill()
        await command.process.wait()
        await until(lambda: not [pid for pid in workers if alive(pid)], 10, "the workers' end")
        assert not folder.exists()
        with pytest.raises(aiohttp.ClientConnectionError):
            await command.get("/healthz")


def folder_of(command: Command) -> Path:
    """Where the workers count."""
    maps = (Path("/proc") / str(command.workers()[0]) / "maps").read_text()
    (folder,) = {Path(line.split()[-1]).parent for line in maps.splitlines() if line.endswith(".db")}
    assert folder.stat().st_mode & 0o777 == 0o700
    return folder


@pytest.mark.parametrize("broken", ["policies", "address"])
async def test_what_is_wrong_is_said_once_before_anything_starts(tmp_path: Path, base: FakeBase, broken: str) -> None:
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", "tenant: 1\n" if broken == "policies" else plain())
    taken = ["--host", "192.0.2.1"] if broken == "address" else []
    async with serving_command(tmp_path, config(base.url, base.url), "--workers", "2", *taken) as command:
        assert await asyncio.wait_for(command.process.wait(), 20) == 2
        errors = [line for line in command.log.read_text().splitlines() if line.startswith("visa-proxy: ")]
        assert len(errors) == 1
        assert ("cannot listen on 192.0.2.1" if broken == "address" else "acme.yaml:1:1") in errors[0]


@pytest.mark.timeout(300)  # models are loaded, by each worker
async def test_workers_that_cannot_start_are_not_started_again_and_again(tmp_path: Path, base: FakeBase) -> None:
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", policy())
    text = config(base.url, base.url) + "detector: {path: ./nowhere}\n"
    async with serving_command(tmp_path, text, "--workers", "2") as command:
        assert await asyncio.wait_for(command.process.wait(), 60) == 3
        log = command.log.read_text()
        assert "nowhere" in log and "starting again" not in log


@pytest.mark.timeout(300)  # models are loaded, by each worker
async def test_kept_responses_are_known_to_every_worker(tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> None:
    arms = "{x: {profile: bold, weight: 1}, y: {profile: bold, weight: 1}}"
    text = policy(shield="{streaming: full, retries: 0}", extra=f"experiments: [{{name: aa, unit: conversation, arms: {arms}}}]")
    async with two(tmp_path, base, rewriter.url, text=text) as command:
        write(tmp_path / "policies", policy(tenant="other", key="sk-other"), "other.yaml")
        first, second = command.workers()
        path, ask = "/v1/responses", {"model": "sample", "input": QUESTION}
        with command.only(first):
            made = (await command.post({**ask, "metadata": {"conversation_id": "c1"}}, path=path)).json
            assert made["output"][0]["content"][0]["text"] == thrilled(ANSWER)
            later = {"background": True, "previous_response_id": made["id"], "metadata": {"conversation_id": "c1"}}
            queued = (await command.post({**ask, **later}, path=path)).json
            assert queued["status"] == "queued"
        with command.only(second):
            assert (await command.get(f"{path}/{made['id']}")).json == made
            # What the first worker was told is rewritten, as it was asked for, by the second.
            await command.get(f"{path}/{queued['id']}")
            done = (await command.get(f"{path}/{queued['id']}")).json
            assert (done["status"], done["previous_response_id"]) == ("completed", made["id"])
            assert done["output"][0]["content"][0]["text"] == thrilled(ANSWER)
            assert done["visa"]["profile"] == "bold"
            assert done["visa"]["experiment"] == made["visa"]["experiment"] and made["visa"]["experiment"]["name"] == "aa"
            item = {"type": "item_reference", "id": made["output"][0]["id"]}
            assert (await command.post({**ask, "input": [item]}, path=path)).status == 200
            assert thrilled(ANSWER) in base.seen[-1].body.decode()
            other = {"Authorization": "Bearer sk-other"}
            deadline = time.monotonic() + 5
            while (await command.get("/v1/models", other)).status == 401:
                assert time.monotonic() < deadline, "the second tenant was not read"
            assert (await command.get(f"{path}/{made['id']}", other)).status == 404
            async with command.http.delete(f"{command.url}{path}/{made['id']}") as got:
                assert got.status == 200
        with command.only(first):
            assert (await command.get(f"{path}/{made['id']}")).status == 404
        with command.only(first):
            os.kill(second, signal.SIGKILL)
            assert (await command.get(f"{path}/{done['id']}")).json == done, "it outlives the worker that was told"


@pytest.mark.timeout(300)  # models are loaded, by each worker
async def test_a_launched_rewriter_runs_once(tmp_path: Path, base: FakeBase) -> None:
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", policy())
    text = f'server: {{workers: 2}}\nbases: {{default: {{url: "{base.url}"}}}}\n'
    async with serving_command(tmp_path, text) as command:
        await command.ready(2)
        engines = [pid for pid, line in children(command.process.pid) if "transformers" in line]
        assert len(engines) == 1 and not [line for pid in command.workers() for _, line in children(pid)]
        for pid in command.workers():
            with command.only(pid):
                assert (await command.post(ASK)).json["visa"]["usage"]["candidates"] > 0
        os.kill(engines[0], signal.SIGKILL)
        for pid in command.workers():
            with command.only(pid):
                deadline = time.monotonic() + 3
                while (said := (await command.get("/readyz")).json)["status"] == "ok":
                    assert time.monotonic() < deadline, "the end of the rewriter was not noticed"
                assert (said["status"], said["checks"]["rewriter"]["status"]) == ("degraded", "unavailable")
        await command.ready(2)
        for pid in command.workers():
            with command.only(pid):
                samples = await command.samples()
                assert (samples["visa_rewriter_ready"], samples["visa_rewriter_restarts_total"]) == (1, 1)
    assert not alive(engines[0])


@pytest.mark.parametrize("count", [0, 65, "two"])
def test_the_number_of_workers_is_checked(tmp_path: Path, count: object) -> None:
    (tmp_path / "visa.yaml").write_text(config("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1", f"{{workers: {count}}}"))
    with pytest.raises(ConfigError, match=r"visa.yaml:1:\d+: server.workers: "):
        load_config(tmp_path / "visa.yaml", {})
