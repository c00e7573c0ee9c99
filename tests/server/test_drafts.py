"""What is kept of the texts that a guardrail is told of: matched in order, bounded, forgotten in time, and counted when it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import QUESTION, never
from tests.fakes.http import until
from tests.fakes.policies import policy, write
from tests.fakes.rewriter import FakeRewriter, asked_text, reply
from tests.fakes.said import ANSWER, LONG_ANSWER
from visa_proxy.errors import RewriteRefused
from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import Endpoint, RewriterConfig, ServerConfig
from visa_proxy.policy.load import load_policy
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.components import Components, Instruments
from visa_proxy.server.draft import Draft, may_end
from visa_proxy.server.drafts import OVERHEAD, Drafts, matched
from visa_proxy.server.hosted import hosted_plan
from visa_proxy.server.plan import Plan
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace

SAID = " Make it an exciting adventure."


@pytest.fixture
async def shield(rewriter: FakeRewriter, instruments: Instruments, tmp_path: Path) -> AsyncIterator[Shield]:
    rewriter.rule = lambda text: f"{text}{SAID}"
    config = ServerConfig(bases={}, policies=tmp_path, rewriter=RewriterConfig(Endpoint(rewriter.url, model="fake")))
    async with new_session() as session:
        components = Components(config, session, instruments)
        yield await components.ensure()
        await components.close()


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return load_policy(write(tmp_path, policy(shield="{streaming: window, retries: 0}")))


def plan_of(tenant: Tenant, **headers: str) -> Plan:
    return hosted_plan(tenant, {"messages": [{"role": "user", "content": QUESTION}]}, headers)[0]


class Ended:
    """What became of texts that are over."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def __call__(self, plan: Plan, trace: Trace) -> None:
        self.statuses.append(trace.status)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Rinse the rice.", True),
        ('He said "stop!"', True),
        ("Enjoy **now!** \n", True),
        ("Bon appétit 🍚", True),
        ("お米を洗います。", True),
        ("Rinse the ri", False),
        ("Rinse the rice,", False),
        ("", False),
    ],
)
def test_an_end_of_a_sentence_may_be_the_end(text: str, ends: bool) -> None:
    assert may_end(text) is ends


class Told(Draft):
    """Known by what was told of it."""

    def __init__(self, told: str) -> None:
        self.told = told


@pytest.mark.parametrize(
    ("known", "texts", "places"),
    [
        (["ab"], ["abc"], [0]),
        (["ab", "ab"], ["abc", "abd"], [0, 1]),
        (["xy"], ["ab", "xyz"], [None, 0]),
        (["ab", "xy"], ["abc", "m", "xyz"], [0, None, 1]),
        (["ab"], ["ba"], [None]),
        ([], ["a", "b"], [None, None]),
    ],
)
def test_texts_find_what_was_told_of_them_before(known: list[str], texts: list[str], places: list[Any]) -> None:
    drafts = [Told(told) for told in known]
    assert matched(drafts, texts) == [None if place is None else drafts[place] for place in places]


async def test_the_same_text_again_is_answered_without_the_rewriter(
    shield: Shield, tenant: Tenant, rewriter: FakeRewriter
) -> None:
    drafts, plan = Drafts(Ended()), plan_of(tenant)
    first = await drafts.say(plan, shield, "call", [ANSWER], [True])
    asked = len(rewriter.asked)
    assert await drafts.say(plan, shield, "call", [ANSWER], [True]) == first
    assert len(rewriter.asked) == asked and first[0].text.replace(SAID, "") == ANSWER


async def test_one_call_with_another_profile_is_another_text(shield: Shield, tenant: Tenant) -> None:
    drafts = Drafts(Ended())
    await drafts.say(plan_of(tenant), shield, "call", [LONG_ANSWER[:400]], [False])
    (other,) = await drafts.say(plan_of(tenant, **{"x-visa-profile": "aim"}), shield, "call", [ANSWER], [True])
    assert other.text.replace(SAID, "") == ANSWER


async def test_the_call_of_whoever_holds_most_goes_first_that_was_heard_of_longest_ago(shield: Shield, tenant: Tenant) -> None:
    ended = Ended()
    drafts = Drafts(ended, max_bytes=7 * OVERHEAD)
    drafts.ask("other", "their", QUESTION)
    for call in ("one", "two", "three"):
        await drafts.say(plan_of(tenant), shield, call, ["Rinse"], [False])
    assert drafts.query("other", "their") == QUESTION
    assert len(ended.statuses) == 1


async def test_a_text_of_which_nothing_is_heard_is_counted_once_and_forgotten(shield: Shield, tenant: Tenant) -> None:
    ended = Ended()
    drafts = Drafts(ended, idle_s=0.3)
    await drafts.say(plan_of(tenant), shield, "call", [ANSWER], [True])
    assert not ended.statuses
    await asyncio.sleep(0.8)
    assert ended.statuses == ["adapted"] and drafts.query("acme", "call") == ""


async def test_what_is_forgotten_while_it_is_worked_on_counts_once(
    shield: Shield, tenant: Tenant, rewriter: FakeRewriter
) -> None:
    """The rewriter is slow; meanwhile another call begins under the same id."""
    go = asyncio.Event()

    async def slow(request: web.Request, raw: bytes) -> web.StreamResponse:
        await go.wait()
        return web.json_response(reply(f"{asked_text(json.loads(raw))}{SAID}"))

    rewriter.answer = slow
    ended = Ended()
    drafts = Drafts(ended, max_bytes=40 * OVERHEAD)
    first = asyncio.create_task(drafts.say(plan_of(tenant), shield, "call", [ANSWER], [True]))
    await until(lambda: bool(rewriter.asked))
    drafts._forget("acme", "call")
    assert drafts._bytes == 0
    drafts.ask("acme", "call", QUESTION)
    go.set()
    await first
    assert drafts._bytes == sum(told.counted for calls in drafts._calls.values() for told in calls.values())
    drafts._forget("acme", "call")
    assert drafts._bytes == 0 and not drafts._calls
    drafts.ask("acme", "call", "x" * 50 * OVERHEAD)
    assert drafts._bytes == 0 and not drafts._calls, "one that is larger than all that may be kept is not kept"


async def test_nothing_of_what_is_forgotten_goes_on(shield: Shield, tenant: Tenant, rewriter: FakeRewriter) -> None:
    rewriter.answer = never
    ended = Ended()
    drafts = Drafts(ended)
    await drafts.say(plan_of(tenant), shield, "call", [LONG_ANSWER[:150]], [False])
    await until(lambda: bool(rewriter.asked))
    assert not rewriter.gone
    drafts._forget("acme", "call")
    assert len(ended.statuses) == 1
    await until(lambda: rewriter.gone == len(rewriter.asked), 5, "the end of the rewrites")
    await until(lambda: not drafts._stopping)


async def test_nothing_is_kept_of_a_turn_that_was_refused(shield: Shield, tmp_path: Path, rewriter: FakeRewriter) -> None:
    strict = load_policy(write(tmp_path, policy(shield="{retries: 0, on_failure: error}"), "strict.yaml"))
    rewriter.rule = lambda text: "Something else altogether, 7 times."
    drafts = Drafts(Ended())
    with pytest.raises(RewriteRefused):
        await drafts.say(plan_of(strict), shield, "call", [ANSWER], [True])
    rewriter.rule = lambda text: f"{text}{SAID}"
    (turn,) = await drafts.say(plan_of(strict), shield, "call", [ANSWER], [True])
    assert turn.text.replace(SAID, "") == ANSWER


async def test_what_a_fork_ends_and_releases_is_not_known_to_the_answer(shield: Shield, tenant: Tenant) -> None:
    answer = plan_of(tenant).open(shield, (0,), windows=True)
    parts = answer.feed(LONG_ANSWER[:150])
    ahead = answer.fork()
    for part in [*parts, *ahead.end()]:
        await ahead.release(part)
    assert ahead.text.replace(SAID, "") == LONG_ANSWER[:150] and answer.text == ""
    parts += answer.feed(LONG_ANSWER[150:]) + answer.end()
    for part in parts:
        await answer.release(part)
    assert answer.text.replace(SAID, "") == LONG_ANSWER and answer.so_far.status == "adapted"
