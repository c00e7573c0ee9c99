"""A value space of one's own, from its folder to the client: measured, aimed at, and no matter to whoever does not name it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, QUESTION, FakeBase
from tests.fakes.instrument import FakeInstrument, completion, instrument_server, one_level
from tests.fakes.policies import policy, write
from tests.fakes.proxy import Running, running
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import load_config
from visa_proxy.server.app import create_app
from visa_proxy.values import load_space

SCHWARTZ = list(load_space("schwartz").names)
SPACE = """\
name: brand
dimensions:
  - {name: thrift, title: Thrift, goal: spending no more than is needed, signals: Prices and savings.}
  - {name: swagger, title: Swagger, goal: showing off}
"""
SIGNS = {"adventure": "stimulation", "exciting": "hedonism", "saves money": "thrift", "kind": "benevolence"}
HOUSE = "  house: {extends: bold, values: {thrift: 1}}\n"
SHIELD = "{retries: 0, min_consistency: 0}"
OTHER = {"Authorization": "Bearer sk-other"}
BODY: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


def thrifty(text: str) -> str:
    """What a rewriter does to move an answer towards stimulation and thrift."""
    return f"{thrilled(text)} It saves money."


def by_rule(fake: FakeInstrument, material: str, made: Callable[[dict[str, float]], dict[str, Any]], key: str) -> None:
    """`fake` finds 1 for every dimension that it is asked for and whose sign stands in the text called `material`."""

    async def answer(request: web.Request, raw: bytes) -> web.StreamResponse:
        body = json.loads(raw)
        names = body["response_format"]["json_schema"]["schema"]["properties"][key]["required"]
        found = re.search(rf"<{material} (\w+)>\n(.*)\n</{material} \1>", body["messages"][1]["content"], re.DOTALL)
        assert found is not None
        levels = {name: 1.0 for sign, name in SIGNS.items() if sign in found[2] and name in names}
        return web.json_response(completion(json.dumps(made(one_level(tuple(names), **levels)))))

    fake.answer = answer


@dataclass
class Stage:
    """Everything around the proxy, and a folder for its files."""

    folder: Path
    base: FakeBase
    rewriter: FakeRewriter
    judge: FakeInstrument
    translator: FakeInstrument

    def config(self, spaces: str, house: str = HOUSE, shield: str = SHIELD) -> Path:
        """A visa.yaml with two tenants: acme, whose default is the profile `house`, and other, which speaks of Schwartz's values alone."""
        (self.folder / "policies").mkdir(exist_ok=True)
        (self.folder / "spaces" / "brand").mkdir(parents=True, exist_ok=True)
        write(self.folder / "spaces" / "brand", SPACE, "space.yaml")
        acme = policy(default="house", shield=shield).replace("  off: passthrough\n", f"{house}  off: passthrough\n")
        write(self.folder / "policies", acme)
        write(self.folder / "policies", policy(tenant="other", key="sk-other", shield=shield), "other.yaml")
        text = f"""\
policies: ./policies
bases: {{default: {{url: "{self.base.url}"}}}}
rewriter: {{url: "{self.rewriter.url}", model: fake}}
detector: {{kind: judge, url: "{self.judge.url}/v1", model: judge, spaces: [{spaces}]}}
translator: {{kind: llm, url: "{self.translator.url}/v1", model: translator}}
"""
        return write(self.folder, text, "visa.yaml")

    @contextlib.asynccontextmanager
    async def serving(self, spaces: str = "./spaces/brand", **options: str) -> AsyncIterator[Running]:
        async with running(load_config(self.config(spaces, **options))) as proxy:
            yield proxy


@pytest.fixture
async def stage(tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> AsyncIterator[Stage]:
    rewriter.rule = thrifty
    async with instrument_server() as judge, instrument_server() as translator:
        by_rule(judge, "answer", lambda levels: {"values": levels}, "values")
        by_rule(translator, "instruction", lambda levels: {"language": "en", "offset": levels, "confidence": 1}, "offset")
        yield Stage(tmp_path, base, rewriter, judge, translator)


async def test_a_profile_aims_at_a_dimension_of_an_own_space(stage: Stage) -> None:
    async with stage.serving() as proxy:
        reply = await proxy.post(BODY)
    visa = reply.json["visa"]
    assert visa["status"] == reply.headers["x-visa-status"] == "adapted"
    assert reply.json["choices"][0]["message"]["content"].endswith("It saves money.")
    names = [*SCHWARTZ, "thrift", "swagger"]
    assert {kind: list(values) for kind, values in visa["values"].items()} == dict.fromkeys(("before", "target", "after"), names)
    found = {kind: {name: level for name, level in values.items() if level} for kind, values in visa["values"].items()}
    assert found["before"] == {}
    assert found["target"] == {"stimulation": 1.0, "hedonism": 0.5, "thrift": 1.0}
    assert found["after"] == {"stimulation": 1.0, "hedonism": 1.0, "thrift": 1.0}
    system, user = stage.rewriter.asked[-1]["messages"]
    assert "- Thrift (thrift): spending no more than is needed. Prices and savings." in system["content"].splitlines()
    assert "- Swagger (swagger): showing off." in system["content"].splitlines()
    assert user["content"].startswith("Target values: hedonism +0.5, stimulation +1, thrift +1\n")


async def test_a_rewrite_must_move_towards_the_extra_dimension_too(stage: Stage) -> None:
    stage.rewriter.rule = thrilled
    async with stage.serving(house="  house: {mode: target, values: {thrift: 1}}\n") as proxy:
        reply = await proxy.post(BODY)
    assert reply.json["visa"]["status"] == "fallback:unverified-values"
    assert reply.json["choices"][0]["message"]["content"] == ANSWER


async def test_an_instruction_is_added_in_the_space_of_the_profile(stage: Stage) -> None:
    async with stage.serving() as proxy:
        reply = await proxy.post(BODY, {"X-Visa-Instruction": "Make it kind."})
        other = await proxy.post(BODY, {"X-Visa-Instruction": "Make it kind.", **OTHER})
    target = reply.json["visa"]["values"]["target"]
    assert (target["benevolence"], target["stimulation"], target["thrift"]) == (1.0, 1.0, 1.0)
    assert list(other.json["visa"]["values"]["target"]) == SCHWARTZ
    assert stage.translator.asked[0]["response_format"]["json_schema"]["schema"]["properties"]["offset"]["required"] == SCHWARTZ


async def told(stage: Stage, headers: dict[str, str], spaces: str, *, stream: bool) -> tuple[dict[str, Any], list[Any]]:
    """The `visa` object without its timings, and what the rewriter was asked."""
    stage.rewriter.asked.clear()
    async with stage.serving(spaces, house="  house: {values: {power: 1}}\n" if not spaces else HOUSE) as proxy:
        reply = await proxy.post({**BODY, "stream": stream}, headers)
    assert reply.status == 200
    if stream:
        events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
        visa = next(event["visa"] for event in events if "visa" in event)
    else:
        visa = reply.json["visa"]
    visa.pop("timings_ms")
    return visa, [body["messages"] for body in stage.rewriter.asked]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("instruction", [{}, {"X-Visa-Instruction": "Make it kind."}], ids=["profile", "instruction"])
async def test_who_names_schwartz_s_values_alone_gets_what_there_was_without(
    stage: Stage, instruction: dict[str, str], stream: bool
) -> None:
    headers = {**OTHER, **instruction}
    with_space = await told(stage, headers, "./spaces/brand, tone", stream=stream)
    without = await told(stage, headers, "", stream=stream)
    assert with_space == without
    visa, asked = without
    assert visa["status"] == "adapted" and list(visa["values"]["target"]) == SCHWARTZ and asked


async def test_windows_are_measured_in_the_space_of_the_target(stage: Stage) -> None:
    paragraph = "Take the pot off the heat and leave it covered for a while. Then fluff it with a fork."
    stage.base.texts = ["\n\n".join([ANSWER, *[paragraph] * 3])]
    shield = SHIELD.replace("{", "{streaming: window, ")
    async with stage.serving(shield=shield) as proxy:
        reply = await proxy.post({**BODY, "stream": True})
    events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    visa = next(event["visa"] for event in events if "visa" in event)
    assert visa["status"] == "adapted" and visa["windows"]["total"] >= 2
    assert list(visa["values"]["after"]) == list(visa["values"]["target"]) == [*SCHWARTZ, "thrift", "swagger"]
    assert visa["values"]["after"]["thrift"] == 1.0 and visa["similarity"]["after"] > visa["similarity"]["before"]


async def test_the_components_alone(stage: Stage) -> None:
    async with stage.serving() as proxy:
        found = (await proxy.post({"answer": "It saves money."}, path="/v1/visa/detect")).json
        wide = (await proxy.post({"answer": ANSWER, "values": {"thrift": 1}}, path="/v1/visa/rewrite")).json
        narrow = (await proxy.post({"answer": ANSWER, "values": {"stimulation": 1}}, path="/v1/visa/rewrite")).json
        unknown = (await proxy.post({"answer": ANSWER, "values": {"warmth": 1}}, path="/v1/visa/rewrite")).json
    assert (found["space"], found["values"]["thrift"]) == ("schwartz+brand", 1.0)
    assert wide["visa"]["values"]["after"]["thrift"] == 1.0
    assert list(narrow["visa"]["values"]["target"]) == SCHWARTZ
    allowed = ", ".join([*SCHWARTZ, "thrift", "swagger"])
    assert unknown["error"]["message"] == f"unknown value 'warmth'; allowed: {allowed}"


@pytest.mark.parametrize(
    ("spaces", "problem"),
    [
        ("brand", "detector.spaces: unknown value space 'brand'; allowed: inglehart-welzel, schwartz, tone, or a folder"),
        ("./brand", "there is no such folder or file"),
    ],
)
async def test_a_space_that_is_not_there_is_an_error_at_the_start(stage: Stage, spaces: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_app(load_config(stage.config(spaces)))
    assert problem in str(caught.value)
