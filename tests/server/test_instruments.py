"""A proxy whose detector and translator are behind endpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, never
from tests.fakes.instrument import KEY, FakeInstrument, instrument_server, one_level
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, reply
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import ComponentConfig, Endpoint, ServerConfig
from visa_proxy.server.endpoints import check_addresses
from visa_proxy.values import load_space

NAMES = load_space("schwartz").names
ASK: dict[str, Any] = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
async def instrument() -> AsyncIterator[FakeInstrument]:
    """Detector and translator in one: it fills in whichever form it is given."""
    async with instrument_server() as fake:

        async def fills_in(request: Any, raw: bytes) -> Any:
            asked = json.loads(raw)
            thrilling = int("adventure" in asked["messages"][1]["content"])
            forms = {
                "value_reading": {"explanation": "It says adventure.", "values": one_level(NAMES, stimulation=thrilling)},
                "value_offset": {"language": "fr", "offset": one_level(NAMES, stimulation=1), "confidence": 1},
            }
            filled = forms[asked["response_format"]["json_schema"]["name"]]
            return await answers(reply(json.dumps(filled)))(request, raw)

        fake.answer = fills_in
        yield fake


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instrument: FakeInstrument) -> Running:
    endpoint = Endpoint(f"{instrument.url}/v1", "oracle", KEY, timeout_s=0.5)
    rewriter.rule = lambda text: f"For the thrill of it: {text} Make it an exciting adventure."
    return await start(
        base.url,
        rewriter.url,
        detector=ComponentConfig("judge", endpoint=endpoint, explain=True),
        translator=ComponentConfig("llm", endpoint=endpoint),
    )


async def test_each_alone(proxy: Running, instrument: FakeInstrument) -> None:
    body = {"query": QUESTION, "answer": "What an adventure."}
    plain = await proxy.post(body, path="/v1/visa/detect")
    assert plain.status == 200
    assert (plain.json["space"], plain.json["values"]["stimulation"], plain.json["confidence"]) == ("schwartz", 1, {})
    assert {"sentences", "explanation"}.isdisjoint(plain.json)
    explained = await proxy.post({**body, "explain": True}, path="/v1/visa/detect")
    assert explained.json == {**plain.json, "explanation": "It says adventure."}
    found = await proxy.post({"instruction": "Rends cela plus palpitant."}, path="/v1/visa/translate")
    assert (found.json["offset"]["stimulation"], found.json["confidence"], found.json["language"]) == (1, 1, "fr")
    assert set(instrument.keys) == {f"Bearer {KEY}"}
    assert (await proxy.post({**body, "explain": "yes"}, path="/v1/visa/detect")).status == 400


async def test_an_offset_is_told_as_the_policy_bounds_it(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instrument: FakeInstrument
) -> None:
    endpoint = Endpoint(f"{instrument.url}/v1", "oracle", KEY, timeout_s=5.0)
    bounds = "bounds: {stimulation: [-1, 0.25], power: [-0.5, 0.0]}"
    proxy = await start(
        base.url,
        rewriter.url,
        text=policy(extra=bounds),
        detector=ComponentConfig("judge", endpoint=endpoint, explain=True),
        translator=ComponentConfig("llm", endpoint=endpoint),
    )
    found = await proxy.post({"instruction": "More thrilling."}, path="/v1/visa/translate")
    assert (found.status, found.json["offset"]) == (200, one_level(NAMES, stimulation=0.25))
    rewriting = {"answer": ANSWER, "instruction": "More thrilling."}
    plain = await proxy.post(ASK, {"X-Visa-Profile": "kind"})
    for visa in (plain.json["visa"], (await proxy.post(rewriting, path="/v1/visa/rewrite")).json["visa"]):
        assert visa["values"]["target"] == one_level(NAMES, stimulation=0.25), "what was measured is 0"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("detect", {"answer": ANSWER}, "detector"),
        ("translate", {"instruction": "Warmer."}, "translator"),
    ],
)
async def test_each_alone_when_it_fails(
    proxy: Running, instrument: FakeInstrument, path: str, body: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "visa_proxy")
    instrument.answer = answers({"error": {"message": f"secret {KEY}"}}, 500)
    failed = await proxy.post(body, path=f"/v1/visa/{path}")
    expected = {"message": f"the {name} answered with status 500", "type": "instrument_error", "param": None}
    assert (failed.status, failed.json) == (502, {"error": {**expected, "code": "instrument_failed"}})
    instrument.answer = never
    late = await proxy.post(body, path=f"/v1/visa/{path}")
    assert (late.status, late.json["error"]["code"]) == (503, "instrument_unavailable")
    assert (late.headers["x-should-retry"], late.headers["retry-after"]) == ("true", "1")
    assert KEY not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_are_rewritten_or_the_base_s_own(
    proxy: Running, base: FakeBase, instrument: FakeInstrument, stream: bool
) -> None:
    ask = {**ASK, "stream": stream}
    instruct = {"X-Visa-Profile": "kind"}
    assert b'"status":"adapted"' in (await proxy.post(ask, instruct)).body.replace(b": ", b":")
    instrument.answer = answers(b"", 500)
    for profile, status in (("bold", "fallback:detector"), ("kind", "fallback:translator")):
        got = await proxy.post(ask, {"X-Visa-Profile": profile})
        assert got.status == 200
        chunks = (
            [json.loads(part[6:]) for part in got.body.split(b"\n\n") if part.startswith(b"data: {")] if stream else [got.json]
        )
        said = [choice.get("delta" if stream else "message", {}).get("content") for each in chunks for choice in each["choices"]]
        assert "".join(text or "" for text in said) == ANSWER
        assert chunks[-1]["visa"]["status"] == status


@pytest.mark.parametrize("name", ["detector", "translator"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST."])
def test_the_proxy_s_own_address_is_refused(name: str, host: str) -> None:
    def config(url: str) -> ServerConfig:
        component = ComponentConfig("judge", endpoint=Endpoint(url, "m"))
        return ServerConfig(bases={}, policies=Path(), port=8080, **{name: component})  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=rf"{name}\.url: port 8080 of this machine is the proxy's own"):
        check_addresses(config(f"http://{host}:8080/v1"), inner=False)
    check_addresses(config(f"http://{host}:8081/v1"), inner=False)
    check_addresses(config("http://judge.example:8080/v1"), inner=False)
    check_addresses(config(f"http://{host}:8080/v1"), inner=True)
