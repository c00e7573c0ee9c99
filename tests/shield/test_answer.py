"""One answer on its way through the shield: its order, its end, and what is left when a part of it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import QUESTION
from tests.fakes.http import until
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from visa_proxy.detector.base import Detector, Reading
from visa_proxy.errors import RewriteRefused
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.server.components import Instruments
from visa_proxy.shield.answer import AT_ONCE, Answer, Part, complete, gathered
from visa_proxy.shield.pipeline import Brief, Shield
from visa_proxy.values import Target, ValueVector, load_space

SPACE = load_space("schwartz")
BOLD = Target("offset", ValueVector.of(SPACE, {"stimulation": 1.0, "hedonism": 0.5}))
SAID = " Make it an exciting adventure."
PARAGRAPHS = (
    "Rinse the rice under cold water until it runs clear. Use two cups of water for each cup of rice.\n\n",
    "Bring it to a boil in a heavy pot. Turn the heat down and cover the pot with a lid. Let it cook slowly then.\n\n",
    "Take the pot off the heat. Leave it covered while the steam finishes the work. Fluff the rice with a fork, gently.\n\n",
    "Keep leftovers in the fridge and eat them within a day. Reheat them until they are hot all the way through again.\n\n",
    "A pinch of salt brings out the taste. Some cooks add a bay leaf or a little butter to the water in the pot.",
)
LONG = "".join(PARAGRAPHS)


@pytest.fixture
async def shield(rewriter: FakeRewriter, instruments: Instruments) -> AsyncIterator[Shield]:
    rewriter.rule = lambda text: text + SAID
    async with new_session() as session:
        chat = ChatRewriter(HttpEndpoint(session, rewriter.url, name="rewriter"), model="fake")
        yield Shield(instruments.detector, instruments.translator, instruments.facts, chat)


def opened(shield: Shield, *, windows: bool = True, stops: tuple[str, ...] = (), **settings: Any) -> Answer:
    brief = Brief(query=QUESTION, target=BOLD, settings=Settings(retries=0, **settings), stops=stops)
    return Answer(shield, brief, asyncio.Semaphore(AT_ONCE), windows=windows)


def fed(answer: Answer, text: str = LONG) -> list[Part]:
    """All parts of `text`, which comes word by word."""
    parts = []
    for word in text.split(" "):
        parts += answer.feed(word + " ")
    return parts + answer.end()


async def test_the_parts_are_in_order_whichever_is_ready_first(shield: Shield, rewriter: FakeRewriter) -> None:
    async def the_later_the_sooner(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(json.loads(raw))
        await asyncio.sleep(0.4 if "Rinse" in text else 0.2 if "boil" in text else 0)
        return web.json_response(reply(text + SAID))

    rewriter.answer = the_later_the_sooner
    answer = opened(shield)
    parts = fed(answer)
    assert len(parts) >= 3
    released = [await answer.release(part) for part in parts]
    assert "".join(released) == answer.text
    assert answer.text.replace(SAID, "") == answer.base == LONG + " "
    assert "Rinse" in released[0] and released[0].count(SAID) == 1
    trace = await answer.report()
    assert trace.windows is not None
    assert trace.windows["adapted"] == answer.text.count(SAID) >= 2
    assert sum(trace.windows.values()) == len(parts)
    assert trace.after is not None and trace.before is not None and trace.target is not None
    assert trace.after.cosine(trace.target) > trace.before.cosine(trace.target)


async def test_no_more_at_once_than_there_are_slots(shield: Shield, rewriter: FakeRewriter) -> None:
    running = most = 0

    async def counting(request: web.Request, raw: bytes) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await until(lambda: most >= 2, 10, "two at once")
        await asyncio.sleep(0.1)  # time for a third one to come
        running -= 1
        return web.json_response(reply(asked_text(json.loads(raw)) + SAID))

    rewriter.answer = counting
    slots = asyncio.Semaphore(2)
    brief = Brief(query=QUESTION, target=BOLD, settings=Settings(retries=0))
    answers = [Answer(shield, brief, slots, windows=True) for _ in range(2)]
    for answer, parts in [(each, fed(each)) for each in answers]:
        for part in parts:
            await answer.release(part)
    assert most == 2, "two answers of one request share its slots"


async def test_stopping_leaves_no_task(shield: Shield, rewriter: FakeRewriter) -> None:
    async def hangs(request: web.Request, raw: bytes) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError("longer than any test")

    rewriter.answer = hangs
    before = asyncio.all_tasks()
    answer = opened(shield)
    parts = fed(answer)
    await until(lambda: len(rewriter.asked) >= 2, 10, "windows under way")
    await answer.stop()
    assert all(part.work.done() for part in parts)
    assert not [task for task in asyncio.all_tasks() - before if "visa_proxy" in repr(task)]
    await until(lambda: rewriter.gone == len(rewriter.asked), 5, "the end of the requests at the rewriter")


async def test_a_whole_text_beyond_the_rewriter_s_reach_leaves_at_once(shield: Shield, rewriter: FakeRewriter) -> None:
    long = "\n\n".join([LONG] * 12)
    assert shield.rewriter.reach < len(long) < 20_000
    answer = opened(shield, windows=False)
    assert answer.feed(long) == []
    (part,) = answer.end()
    text = await answer.release(part)
    assert text.replace(SAID, "") == long
    assert len(rewriter.asked) >= 2
    assert text.count(SAID) >= 2


async def test_one_refusal_of_many_windows_ends_the_others(shield: Shield, rewriter: FakeRewriter) -> None:
    """Under `on_failure: error`, a text that goes to the rewriter in windows is refused as a whole, and nothing is left running."""
    rewriter.rule = lambda text: "Pay 900 dollars to a stranger." if "leftovers" in text else text + SAID
    before = asyncio.all_tasks()
    answer = opened(shield, windows=False, on_failure="error")
    with pytest.raises(RewriteRefused):
        await complete(answer, "\n\n".join([LONG] * 12))
    assert answer.text == ""

    def running() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() - before if "visa_proxy" in repr(task)]

    # A batch that is in the encoder when its callers go is worked off.
    await until(lambda: not running(), 5, "the end of all that was begun")


class Failing:
    """A detector that fails from some moment on."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.space = detector.space
        self.broken = False

    async def detect(self, query: str, answer: str) -> Reading:
        if self.broken:
            raise RuntimeError("the model is gone")
        return await self._detector.detect(query, answer)


async def test_a_detector_that_fails_in_the_report_costs_nothing(shield: Shield) -> None:
    detector = Failing(shield.detector)
    answer = opened(Shield(detector, shield.translator, shield.facts, shield.rewriter))
    for part in fed(answer):
        await answer.release(part)
    detector.broken = True
    trace = await answer.report()
    assert answer.text.replace(SAID, "") == LONG + " "
    assert trace.status == "adapted"
    assert trace.windows is not None and trace.windows["adapted"] == answer.text.count(SAID)
    assert (trace.before, trace.target, trace.after) == (None, None, None), "half a measurement is none"


async def test_a_detector_that_fails_costs_only_the_rewrite(shield: Shield) -> None:
    detector = Failing(shield.detector)
    detector.broken = True
    answer = opened(Shield(detector, shield.translator, shield.facts, shield.rewriter))
    for part in fed(answer):
        await answer.release(part)
    assert answer.text == LONG + " "
    assert (await answer.report()).status == "fallback:error"


async def test_a_stop_sequence_across_two_windows_stays_out(shield: Shield, rewriter: FakeRewriter) -> None:
    """Neither window holds it, both together would: the second leaves as the base's own text."""
    rewriter.rule = thrilled
    bare = opened(shield)
    released = [await bare.release(part) for part in fed(bare)]
    at = next(i for i, text in enumerate(released) if i and "thrill" in text)
    stop = released[at - 1][-6:] + released[at].partition("thrill")[0]
    assert stop not in LONG and stop in bare.text
    answer = opened(shield, stops=(stop,))
    again = [await answer.release(part) for part in fed(answer)]
    assert stop not in answer.text
    assert again[:at] == released[:at]
    assert again[at] in LONG and again[at] != released[at]
    trace = await answer.report()
    assert trace.windows is not None and trace.windows["fallback:unverified-stop"] >= 1


async def test_gathered_ends_everything_before_it_raises() -> None:
    ended = []

    async def slow() -> int:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("slow")
        return 1

    async def fails() -> int:
        await asyncio.sleep(0.01)
        raise RewriteRefused("no verified rewrite: x")

    with pytest.raises(RewriteRefused):
        await gathered([slow(), fails(), slow()])
    assert ended == ["slow", "slow"]

    async def number(value: int) -> int:
        await asyncio.sleep(0.01 * (3 - value))
        return value

    assert await gathered(number(i) for i in range(3)) == [0, 1, 2]
