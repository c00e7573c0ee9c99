"""JSON answers through the shield: its fields at once, each by itself, and the rest byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import QUESTION
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from tests.fakes.said import JSON_ANSWER, SUMMARY
from visa_proxy.errors import RewriteRefused
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.server.components import Instruments
from visa_proxy.shield.pipeline import Adaptation, Brief, Shield
from visa_proxy.shield.structured import adapt_fields
from visa_proxy.values import Target, ValueVector, load_space

SPACE = load_space("schwartz")
BOLD = Target("offset", ValueVector.of(SPACE, {"stimulation": 1.0, "hedonism": 0.5}))
STEPS = ["Rinse the rice in cold water.", "Bring the water to a boil.", "Fluff the rice with a fork."]
LISTED = json.dumps({"steps": STEPS, "minutes": 15})


@pytest.fixture
async def shield(rewriter: FakeRewriter, instruments: Instruments) -> AsyncIterator[Shield]:
    async with new_session() as session:
        chat = ChatRewriter(HttpEndpoint(session, rewriter.url, name="rewriter"), model="fake")
        yield Shield(instruments.detector, instruments.translator, instruments.facts, chat)


async def adapt(
    shield: Shield, text: str, *pointers: str, schema: dict[str, Any] | None = None, at_once: int = 4, **settings: Any
) -> Adaptation:
    brief = Brief(query=QUESTION, target=BOLD, settings=Settings(retries=0, json_fields=pointers, **settings))
    return await adapt_fields(shield, brief, text, slots=asyncio.Semaphore(at_once), schema=schema)


async def test_a_named_field_is_rewritten_and_no_other_byte(shield: Shield) -> None:
    result = await adapt(shield, JSON_ANSWER, "/summary")
    assert result.text == JSON_ANSWER.replace(SUMMARY, thrilled(SUMMARY))
    assert (result.trace.status, result.trace.attempts) == ("adapted", 1)
    assert result.trace.after is not None


@pytest.mark.parametrize("text", [JSON_ANSWER, "{broken", "No JSON at all.", ""])
async def test_without_a_field_it_stays(shield: Shield, rewriter: FakeRewriter, text: str) -> None:
    result = await adapt(shield, text, "/nothing")
    assert (result.text, result.trace.status) == (text, "skipped:json")
    assert not rewriter.asked


async def test_each_field_by_itself(shield: Shield, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: "Pay 900 dollars to a stranger." if "boil" in text else thrilled(text)
    result = await adapt(shield, LISTED, "/steps/*")
    assert json.loads(result.text) == {"steps": [thrilled(STEPS[0]), STEPS[1], thrilled(STEPS[2])], "minutes": 15}
    assert (result.trace.status, result.trace.attempts) == ("adapted", 3)
    assert result.trace.refused


async def test_no_more_fields_at_once_than_there_are_slots(shield: Shield, rewriter: FakeRewriter) -> None:
    running = most = 0

    async def counting(request: web.Request, raw: bytes) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        return web.json_response(reply(thrilled(asked_text(json.loads(raw)))))

    rewriter.answer = counting
    result = await adapt(shield, LISTED, "/steps/*", at_once=1)
    assert result.trace.status == "adapted"
    assert most == 1 and len(rewriter.asked) == 3


@pytest.mark.parametrize("rules", [{"maxLength": len(SUMMARY)}, {"enum": [SUMMARY]}, {"const": SUMMARY}])
async def test_a_rewrite_that_does_not_fit_the_schema(shield: Shield, rules: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"summary": rules}}
    result = await adapt(shield, JSON_ANSWER, "/summary", schema=schema)
    assert (result.text, result.trace.status, result.trace.after) == (JSON_ANSWER, "fallback:schema", None)
    with pytest.raises(RewriteRefused, match="schema"):
        await adapt(shield, JSON_ANSWER, "/summary", schema=schema, on_failure="error")


async def test_a_refused_field_ends_the_others(shield: Shield, rewriter: FakeRewriter) -> None:
    """Under `on_failure: error` nothing is left running behind the error."""
    before = asyncio.all_tasks()

    async def slow(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(json.loads(raw))
        if "boil" not in text:
            await asyncio.sleep(30)
        return web.json_response(reply(text))

    rewriter.answer = slow
    async with asyncio.timeout(15):
        with pytest.raises(RewriteRefused):
            await adapt(shield, LISTED, "/steps/*", on_failure="error")
    assert not [task for task in asyncio.all_tasks() - before if "visa_proxy" in repr(task)]
