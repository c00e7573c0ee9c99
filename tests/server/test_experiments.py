"""Experiments over HTTP: who is assigned, by what, and where it is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.fakes.base import QUESTION, Answer, FakeBase
from tests.fakes.policies import KEY, plain, policy, write
from tests.fakes.proxy import Running, Starter
from tests.fakes.responses import parsed
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.policy.load import load_policy
from visa_proxy.server.components import Instruments
from visa_proxy.server.hosted import hosted_plan

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
TWICE = "a: {profile: off, weight: 1}, b: {profile: off, weight: 1}"
HEADER = "x-visa-experiment"


def experiments(*listed: str) -> str:
    return "experiments:\n" + "".join(f"- {{{each}}}\n" for each in listed)


def twins(*listed: str) -> str:
    """A policy that needs no models: both arms of each experiment pass through."""
    return plain() + experiments(*(f"{each}, arms: {{{TWICE}}}" for each in listed))


async def arm(proxy: Running, body: Any = (), headers: dict[str, str] | None = None, **options: Any) -> str | None:
    """What X-Visa-Experiment says."""
    reply = await proxy.post({**ASK, **dict(body)}, headers, **options)
    assert reply.status == 200, reply.body
    found: str | None = reply.headers.get(HEADER)
    return found


async def counted(proxy: Running) -> dict[str, float]:
    name = "visa_experiment_exposures_total"
    lines = (await proxy.get("/metrics")).body.decode().splitlines()
    return {line.removeprefix(name).split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith(name)}


async def test_the_arm_is_said_in_header_visa_and_metrics(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    arms = "{one: {profile: bold, weight: 1}, two: {profile: bold, weight: 1}}"
    text = policy(extra=experiments(f"name: aa, unit: user, arms: {arms}, holdout: 0.2"), default="kind")
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=text)
    seen: Counter[str] = Counter()
    for user in map(str, range(12)):
        reply = await proxy.post({**ASK, "user": user})
        name, said = reply.headers[HEADER].split("/")
        assert reply.json["visa"]["experiment"] == {"name": "aa", "arm": said} and name == "aa"
        assert reply.headers["x-visa-profile"] == reply.json["visa"]["profile"] == ("kind" if said == "holdout" else "bold")
        seen[said] += 1
    assert set(seen) == {"one", "two", "holdout"}
    expected = {f'{{arm="{name}",experiment="aa",tenant="acme"}}': float(count) for name, count in seen.items()}
    assert await counted(proxy) == expected
    none = await proxy.post({**ASK, "user": "1"}, {"X-Visa-Profile": "bold"})
    assert HEADER not in none.headers and "experiment" not in none.json["visa"]
    assert await counted(proxy) == expected, "who chose a profile is in no arm"
    none = await proxy.post({**ASK, "user": "1"}, {"X-Visa-Instruction": "Sound more careful."})
    assert none.status == 200 and HEADER not in none.headers and none.headers["x-visa-profile"] == "kind"
    assert await counted(proxy) == expected, "nor is who brought an instruction"


async def test_streams_and_responses_say_it_too(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    extra = experiments("name: ab, unit: user, arms: {bold: 1, aim: 1}")
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(extra=extra))
    stream = await proxy.client.chat.completions.create(**ASK, stream=True, user="ada")
    visa = [(chunk.model_extra or {}).get("visa") async for chunk in stream][-1]
    said = {"name": "ab", "arm": (await arm(proxy, {"user": "ada"}) or "").partition("/")[2]}
    assert visa is not None and visa["experiment"] == said
    asked = {"model": "sample", "input": QUESTION, "safety_identifier": "ada"}
    assert (await proxy.post(asked, path="/v1/responses")).json["visa"]["experiment"] == said
    events = parsed((await proxy.post({**asked, "stream": True}, path="/v1/responses")).body)
    assert events[-1]["response"]["visa"]["experiment"] == said
    # Known only when it is asked for again: the plan is kept, and the arm with it.
    queued = (await proxy.post({**asked, "background": True}, path="/v1/responses")).json
    for _ in range(5):
        done = (await proxy.get(f"/v1/responses/{queued['id']}")).json
        if done["status"] == "completed":
            break
    assert done["visa"]["experiment"] == said
    assert sum((await counted(proxy)).values()) == 5, "to ask for an answer again is no new exposure"


async def test_what_a_request_says_of_its_unit(start: Starter, base: FakeBase) -> None:
    text = twins("name: u, unit: user", "name: c, unit: conversation", "name: h, unit: 'header:X-Room'", "name: s, unit: session")
    proxy = await start(base.url, text=text)
    for i in map(str, range(8)):
        user = await arm(proxy, {"user": i})
        assert user is not None and user.startswith("u/")
        assert user == await arm(proxy, {"safety_identifier": i}) == await arm(proxy, {"user": i, "safety_identifier": "x"})
        assert user == await arm(proxy, {"user": i}, {"X-Room": "1"}), "the first experiment whose unit is there"
        talk = await arm(proxy, {"metadata": {"conversation_id": i}})
        assert talk is not None and talk.startswith("c/")
        for given in (i, {"id": i}):
            body = {"model": "sample", "input": QUESTION, "conversation": given, "metadata": {"conversation_id": "x"}}
            assert talk == (await proxy.post(body, path="/v1/responses")).headers.get(HEADER)
        room, session = [await arm(proxy, headers={name: i}) for name in ("X-ROOM", "X-Visa-Unit")]
        assert room is not None and room.startswith("h/") and session is not None and session.startswith("s/")
    for nobody in ({}, {"prompt_cache_key": "k"}, {"user": ""}, {"safety_identifier": 5}, {"metadata": {"conversation_id": 5}}):
        assert await arm(proxy, nobody) is None


async def test_header_bytes_that_are_no_text_are_units_too(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=twins("name: h, unit: 'header:X-Room'"))
    found = [await raw_arm(proxy, b"Zo" + bytes([0xE0 + i])) for i in range(16)]
    assert set(found) == {b"h/a", b"h/b"}, "each its own"


async def raw_arm(proxy: Running, room: bytes) -> bytes:
    """What X-Visa-Experiment says, to bytes that a client library would not send."""
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = orjson.dumps(ASK)
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: x", b"Authorization: Bearer " + KEY.encode(), b"X-Room: " + room]
    writer.write(b"\r\n".join([*lines, b"Connection: close", b"Content-Length: %d" % len(body), b"", body]))
    head = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")[0]
    writer.close()
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return fields[HEADER.encode()]


def test_a_header_that_litellm_hides_is_no_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tenant = load_policy(write(tmp_path, twins("name: h, unit: 'header:X-Room'")))
    plan, visa = hosted_plan(tenant, {"messages": []}, {"X-Room": "[present]"})
    assert plan.assignment is None and b"x-visa-experiment" not in visa
    assert [record.getMessage() for record in caplog.records] == [
        "LiteLLM hides x-room: list it under extra_headers of the guardrail's litellm_params"
    ]
    plan, visa = hosted_plan(tenant, {"messages": []}, {"X-Room": "r1"})
    assert plan.assignment is not None and visa[b"x-visa-experiment"] == str(plan.assignment)


async def test_replicas_and_restarts_agree(start: Starter, base: FakeBase) -> None:
    text = twins("name: ab, unit: user, holdout: 0.2, layer: voice, traffic: [0.1, 0.8]")
    one, two = await start(base.url, text=text), await start(base.url, text=text)
    found = [[await arm(proxy, {"user": str(i)}) for i in range(40)] for proxy in (one, two)]
    assert found[0] == found[1]
    assert set(found[0]) == {None, "ab/a", "ab/b", "ab/holdout"}


async def test_times_are_looked_at_on_each_request(start: Starter, base: FakeBase) -> None:
    now = datetime.now(UTC)
    early, late = (now - timedelta(hours=1)).isoformat(), (now + timedelta(hours=1)).isoformat()
    soon = (now + timedelta(seconds=2)).isoformat()
    text = twins(
        f"name: over, unit: user, stop: '{early}'",
        f"name: ending, unit: user, stop: '{soon}'",
        f"name: next, unit: user, start: '{soon}', stop: '{late}'",
    )
    proxy = await start(base.url, text=text)
    seen = []
    while datetime.now(UTC) < now + timedelta(seconds=2.3):
        seen.append((await arm(proxy, {"user": "ada"}) or "none").partition("/")[0])
        await asyncio.sleep(0.05)
    assert list(dict.fromkeys(seen)) == ["ending", "next"]


@pytest.mark.parametrize("status", [400, 500])
async def test_an_arm_that_fails_is_counted_like_one_that_does_not(start: Starter, base: FakeBase, status: int) -> None:
    proxy = await start(base.url, text=twins("name: ab, unit: user"))
    base.answer = failing(status)
    replies = [await proxy.post({**ASK, "user": str(i)}) for i in range(6)]
    assert all(reply.status >= 400 for reply in replies)
    assert sum((await counted(proxy)).values()) == 6


def failing(status: int) -> Answer:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    return answer
