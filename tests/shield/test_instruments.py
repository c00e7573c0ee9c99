"""A detector and a translator behind endpoints: what becomes of an answer when they work, fail and stall."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, QUESTION, answers, never
from tests.fakes.instrument import KEY, FakeInstrument, Json, endpoint_at, instrument_server, one_level
from tests.fakes.rewriter import FakeRewriter, reply
from visa_proxy.detector.judge import JudgeDetector
from visa_proxy.errors import RewriteRefused
from visa_proxy.facts.base import FactReport
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.shield.answer import AT_ONCE, Answer, Part, complete
from visa_proxy.shield.pipeline import Brief, Shield
from visa_proxy.translator.llm import LlmTranslator
from visa_proxy.values import Target, ValueVector, load_space

SPACE = load_space("schwartz")
BOLD = Target("offset", ValueVector.of(SPACE, {"stimulation": 1.0, "hedonism": 0.5}))
SAID = " Make it an exciting adventure."
LONG = "".join(
    f"Rinse the {rice} rice under cold water until it runs clear. Then use two cups of water for each cup of it.\n\n"
    for rice in ("white", "brown", "black", "red", "wild", "round", "long", "old")
)


class Agreeing:
    """A fact analyzer that finds nothing: what it would find is not the point here."""

    async def compare(self, original: str, rewritten: str) -> FactReport:
        return FactReport(1.0, 1.0)


@dataclass
class Stack:
    shield: Shield
    detector: FakeInstrument
    translator: FakeInstrument


def judged(body: Json) -> web.Response:
    """Stimulating is what is called an adventure."""
    level = 1 if "adventure" in body["messages"][1]["content"] else 0
    return web.json_response(reply(json.dumps({"values": one_level(SPACE.names, stimulation=level)})))


async def judges(request: web.Request, raw: bytes) -> web.StreamResponse:
    return judged(json.loads(raw))


def translated(confidence: float = 1, **levels: float) -> str:
    return json.dumps({"language": "fr", "offset": one_level(SPACE.names, **levels), "confidence": confidence})


@pytest.fixture
async def stack(rewriter: FakeRewriter) -> AsyncIterator[Stack]:
    rewriter.rule = lambda text: text + SAID
    async with (
        instrument_server() as detector,
        instrument_server() as translator,
        endpoint_at(f"{detector.url}/v1", timeout_s=1.0) as judge,
        endpoint_at(f"{translator.url}/v1", timeout_s=1.0, name="translator") as llm,
        endpoint_at(rewriter.url, name="rewriter") as chat,
    ):
        detector.answer = judges
        translator.says = [translated(stimulation=1)]
        parts = JudgeDetector(judge, "j", SPACE), LlmTranslator(llm, "t", SPACE), Agreeing(), ChatRewriter(chat, model="fake")
        yield Stack(Shield(*parts), detector, translator)


def opened(shield: Shield, *, windows: bool = False, instruction: str | None = None, **settings: Any) -> Answer:
    brief = Brief(
        query=QUESTION,
        target=None if instruction else BOLD,
        settings=Settings(retries=0, **settings),
        instructions=(instruction,) if instruction else (),
    )
    return Answer(shield, brief, asyncio.Semaphore(AT_ONCE), windows=windows)


def fed(answer: Answer, text: str = LONG) -> list[Part]:
    return answer.feed(text) + answer.end()


@pytest.mark.parametrize("instruction", [None, "Rends cela plus palpitant."])
async def test_they_do_what_the_bundled_ones_do(stack: Stack, instruction: str | None) -> None:
    found = await complete(opened(stack.shield, instruction=instruction), ANSWER)
    assert (found.text, found.trace.status) == (ANSWER + SAID, "adapted")
    assert found.trace.after is not None and found.trace.after["stimulation"] == 1
    assert len(stack.translator.asked) == (1 if instruction else 0)


async def test_what_asks_for_no_value_changes_nothing(stack: Stack) -> None:
    stack.translator.says = [translated(0.1)]
    found = await complete(opened(stack.shield, instruction="Écris en majuscules."), ANSWER)
    assert (found.text, found.trace.status) == (ANSWER, "skipped:unclear-instruction")


FAULTS = {"500": answers({"error": {"message": ANSWER}}, 500), "garbled": answers(reply("no idea")), "stalls": never}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", ["detector", "translator"])
async def test_one_that_fails_costs_only_the_rewrite(
    stack: Stack, name: str, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    {"detector": stack.detector, "translator": stack.translator}[name].answer = fault
    found = await complete(opened(stack.shield, instruction="Rends cela plus palpitant."), ANSWER)
    assert (found.text, found.trace.status, found.trace.outcome) == (ANSWER, f"fallback:{name}", "fallback")
    assert ANSWER not in caplog.text and "palpitant" not in caplog.text and KEY not in caplog.text
    with pytest.raises(RewriteRefused, match=name):
        await complete(opened(stack.shield, instruction="Rends cela plus palpitant.", on_failure="error"), ANSWER)


async def test_a_rewrite_that_cannot_be_measured_does_not_leave(stack: Stack) -> None:
    async def before_only(request: web.Request, raw: bytes) -> web.StreamResponse:
        return judged(json.loads(raw)) if b"adventure" not in raw else web.Response(status=500)

    stack.detector.answer = before_only
    found = await complete(opened(stack.shield), ANSWER)
    assert (found.text, found.trace.status) == (ANSWER, "fallback:detector")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_one_that_fails_at_the_end_of_a_stream_does_not_break_it(stack: Stack, fault: Any) -> None:
    answer = opened(stack.shield, windows=True)
    parts = fed(answer)
    released = [await answer.release(part) for part in parts]
    assert len(parts) > 2 and all(text.rstrip().endswith(SAID.strip()) for text in released)
    stack.detector.answer = fault
    trace = await answer.report()
    assert (trace.status, trace.before, trace.target, trace.after) == ("adapted", None, None, None)
    assert answer.base == LONG


@pytest.mark.parametrize("name", ["detector", "translator"])
async def test_one_that_stalls_is_waited_for_once_and_not_for_every_window(stack: Stack, name: str) -> None:
    fake = {"detector": stack.detector, "translator": stack.translator}[name]
    fake.answer = never
    answer = opened(stack.shield, windows=True, instruction="Rends cela plus palpitant.")
    parts = fed(answer)
    assert len(parts) > AT_ONCE
    async with asyncio.timeout(8):
        for part in parts:
            await answer.release(part)
    assert answer.text == LONG
    assert len(fake.asked) <= AT_ONCE
    trace = await answer.report()
    assert trace.status == f"fallback:{name}"
    assert trace.windows == {f"fallback:{name}": len(parts)}
