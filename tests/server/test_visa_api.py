"""POST /v1/visa/{detect,translate,rewrite}: the components, each alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.server.components import Instruments
from visa_proxy.values import load_space

NAMES = list(load_space("schwartz").names)


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments)


async def ask(proxy: Running, path: str, **body: Any) -> Any:
    reply = await proxy.post(body, path=f"/v1/visa/{path}")
    assert reply.status == 200, reply.body
    assert reply.headers["x-visa-tenant"] == "acme"
    assert reply.headers["x-request-id"]
    return reply.json


async def test_detect(proxy: Running, base: FakeBase) -> None:
    plain = await ask(proxy, "detect", query=QUESTION, answer=ANSWER)
    bold = await ask(proxy, "detect", query=QUESTION, answer=thrilled(ANSWER))
    assert (plain["object"], plain["space"], list(plain["values"])) == ("visa.detection", "schwartz", NAMES)
    assert bold["values"]["stimulation"] > plain["values"]["stimulation"] + 0.2
    assert set((await ask(proxy, "detect", answer=""))["values"].values()) == {0.0}
    assert not base.seen


async def test_translate(proxy: Running) -> None:
    found = await ask(proxy, "translate", instruction="Make this kinder and more caring.")
    assert (found["object"], found["space"], list(found["offset"])) == ("visa.translation", "schwartz", NAMES)
    assert found["offset"]["benevolence"] > 0.2
    assert 0.5 < found["confidence"] <= 1


@pytest.mark.parametrize(
    ("wanted", "profile"),
    [
        ({"profile": "bold"}, "bold"),
        ({}, "bold"),
        ({"values": {"stimulation": 1, "hedonism": 0.5}}, None),
        ({"values": {"stimulation": 1.0, "hedonism": 0.5}, "mode": "target"}, None),
        ({"instruction": "Make it a thrilling adventure."}, None),
        ({"values": {"hedonism": 0.5}, "instruction": "Make it a thrilling adventure."}, None),
    ],
)
async def test_rewrite(proxy: Running, base: FakeBase, wanted: dict[str, Any], profile: str | None) -> None:
    reply = await proxy.post({"query": QUESTION, "answer": ANSWER, **wanted}, path="/v1/visa/rewrite")
    data = reply.json
    assert data["object"] == "visa.rewrite"
    assert data["visa"]["status"] == reply.headers["x-visa-status"] == "adapted"
    assert data["visa"]["profile"] == profile
    assert data["text"].startswith("For the thrill of it, rinse the rice")
    assert "15 minutes, as shown at https://example.org/rice." in data["text"]
    assert not base.seen


@pytest.mark.parametrize(
    "level", ["true", '"1"', "null", "[1]", "1.01", "-2", "1e400", "NaN", "1" + "0" * 400], ids=lambda level: level[:6]
)
async def test_a_level_is_a_number(proxy: Running, level: str) -> None:
    raw = f'{{"answer": "Stay at home.", "values": {{"power": {level}}}}}'.encode()
    reply = await proxy.post(raw, path="/v1/visa/rewrite")
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", ["detect", "translate", "rewrite"])
@pytest.mark.parametrize("body", [{"explain": 1}, {"explain": "true"}, {"query": 1}, {"answer": True}, {"instruction": 1}])
async def test_a_body_s_fields_are_of_their_types(proxy: Running, path: str, body: dict[str, Any]) -> None:
    given = {"translate": {"instruction": "Be bold."}}.get(path, {"answer": ANSWER})
    reply = await proxy.post({**given, **body}, path=f"/v1/visa/{path}")
    assert (reply.status, reply.json["error"]["param"]) == (400, next(iter(body)))


async def test_a_rewrite_that_cannot_be_had_is_the_answer_itself(proxy: Running, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda _: "Something else."
    data = await ask(proxy, "rewrite", answer=ANSWER)
    assert (data["text"], data["visa"]["status"]) == (ANSWER, "fallback:unverified-placeholders")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"answer": "  "}, "skipped:empty"),
        ({"answer": ANSWER, "values": {}}, "skipped:no-offset"),
        ({"answer": ANSWER, "instruction": "xyzzy 42"}, "skipped:unclear-instruction"),
    ]
    for body, status in cases:
        data = await ask(proxy, "rewrite", **body)
        assert (data["text"], data["visa"]["status"]) == (body["answer"], status)


async def test_on_failure_error(start: Starter, base: FakeBase, instruments: Instruments) -> None:
    proxy = await start(base.url, instruments=instruments, text=policy(shield="{on_failure: error, retries: 0}"))
    reply = await proxy.post({"answer": ANSWER}, path="/v1/visa/rewrite")
    assert (reply.status, reply.json["error"]["code"]) == (502, "rewrite_unverified")
