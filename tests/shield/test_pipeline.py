"""The flow with its real components, and a rewriter behind HTTP that follows rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, QUESTION, answers
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from visa_proxy.errors import RewriteRefused, RewriterError
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.base import RewriteRequest
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.server.components import Instruments
from visa_proxy.shield.pipeline import Adaptation, Brief, Shield
from visa_proxy.values import Target, ValueVector, load_space

SPACE = load_space("schwartz")
BOLD = Target("offset", ValueVector.of(SPACE, {"stimulation": 1.0, "hedonism": 0.5}))


@pytest.fixture
async def shield(rewriter: FakeRewriter, instruments: Instruments) -> AsyncIterator[Shield]:
    async with new_session() as session:
        chat = ChatRewriter(HttpEndpoint(session, rewriter.url, name="rewriter"), model="fake")
        yield Shield(instruments.detector, instruments.translator, instruments.facts, chat)


async def adapt(shield: Shield, answer: str = ANSWER, target: Target | None = BOLD, **settings: Any) -> Adaptation:
    return await shield.adapt(Brief(query=QUESTION, target=target, settings=Settings(**settings)), answer)


async def test_the_outer_white_space_stays(shield: Shield) -> None:
    result = await adapt(shield, f"\n\n  {ANSWER} \n")
    assert result.trace.status == "adapted"
    assert result.text.startswith("\n\n  For the thrill")
    assert result.text.endswith("adventure. \n")


async def test_what_is_preserved_comes_back_byte_for_byte(shield: Shield) -> None:
    kept = ["`make rice`", "https://example.org/r_(x)?a=1", "$4.50", "“low and slow”", "Ada Lovelace", "TrailPro mix"]
    answer = f"Use {kept[0]} as at {kept[1]} today. It costs {kept[2]} a pot. {kept[4]} said {kept[3]} of {kept[5]}."
    result = await adapt(shield, answer, glossary=("TrailPro mix",))
    assert result.trace.status == "adapted"
    assert all(span in result.text for span in kept)
    assert result.trace.preserved == 6


async def test_the_best_verified_candidate_is_taken(shield: Shield, rewriter: FakeRewriter) -> None:
    async def several(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(rewriter.asked[-1])
        rewrites = [text, f"{text} It may be fun.", thrilled(text), "Lost."]
        return web.json_response(reply(rewrites[rewriter.asked[-1]["seed"]]))

    rewriter.answer = several
    result = await adapt(shield, candidates=4, retries=0)
    assert result.trace.status == "adapted"
    assert result.text.startswith("For the thrill of it")
    assert result.trace.attempts == 4
    assert [body["temperature"] > 0 for body in sorted(rewriter.asked, key=lambda body: body["seed"])] == [
        False,
        True,
        True,
        True,
    ]


async def test_a_retry_is_warmer_and_may_succeed(shield: Shield, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: thrilled(text) if len(rewriter.asked) == 3 else text
    result = await adapt(shield, retries=3)
    assert result.trace.status == "adapted"
    assert (result.trace.attempts, result.trace.refused) == (3, ["unchanged", "unchanged"])
    assert (result.trace.prompt_tokens, result.trace.completion_tokens) == (300, 120)
    assert [body["temperature"] for body in rewriter.asked] == [0.0, 0.5, 0.5]


async def test_thresholds(shield: Shield, rewriter: FakeRewriter) -> None:
    bold = rewriter.rule
    rewriter.rule = lambda text: (
        f"{bold(text)} Honour the customs of our ancestors. Follow every rule politely. Above all, stay safe."
    )
    assert (await adapt(shield, min_gain=1.0, retries=0)).trace.status == "fallback:unverified-values"
    rewriter.rule = bold
    assert (await adapt(shield, min_consistency=1.0, retries=0)).trace.status == "fallback:unverified-facts"
    assert (await adapt(shield, skip_above=-1.0)).trace.status == "aligned"


async def test_nothing_to_do(shield: Shield, rewriter: FakeRewriter) -> None:
    assert (await adapt(shield, " \n")).trace.status == "skipped:empty"
    assert (await adapt(shield, target=None)).trace.status == "skipped:no-offset"
    assert not rewriter.asked


async def test_instructions_add_up(shield: Shield) -> None:
    brief = Brief(query=QUESTION, target=BOLD, settings=Settings(), instructions=["Make it kinder and more caring."])
    result = await shield.adapt(brief, ANSWER)
    assert result.trace.target is not None
    assert result.trace.before is not None
    assert result.trace.target["benevolence"] > result.trace.before["benevolence"] + 0.1
    assert result.trace.target["stimulation"] > 0.9


async def test_a_refusal_leaves_only_where_the_policy_says_so(shield: Shield, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: text
    assert (await adapt(shield)).text == ANSWER
    with pytest.raises(RewriteRefused, match="no verified rewrite: unverified-unchanged"):
        await adapt(shield, on_failure="error")


async def rewrites(url: str, *, model: str | None = None, candidates: int = 1, text: str = "Text.") -> tuple[str, ...]:
    zero = ValueVector.zero(SPACE)
    request = RewriteRequest(query="Q", text=text, target=zero, model=model, candidates=candidates)
    async with new_session() as session:
        rewriter = ChatRewriter(HttpEndpoint(session, url, name="rewriter"), model="own", style="compact")
        return (await rewriter.rewrite(request, timeout_s=5)).texts


async def test_what_the_rewriter_is_asked(rewriter: FakeRewriter) -> None:
    rewriter.answer = answers(reply("<think>Hm, 3.</think>\n\n Done. "))
    assert await rewrites(rewriter.url) == ("Done.",)
    assert await rewrites(rewriter.url, model="acme-bold", text="x" * 1000) == ("Done.",)
    first, second = rewriter.asked
    assert (first["model"], second["model"]) == ("own", "acme-bold")
    assert first["messages"] == [{"role": "user", "content": "neutral\nText."}]
    assert second["max_tokens"] > first["max_tokens"] >= 64
    assert first["stream"] is False


async def test_some_candidates_may_fail(rewriter: FakeRewriter) -> None:
    async def one_in_three(request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response(reply("Good.")) if len(rewriter.asked) == 2 else web.Response(status=500)

    rewriter.answer = one_in_three
    assert await rewrites(rewriter.url, candidates=3) == ("Good.",)
    rewriter.answer = answers(b"", 500)
    with pytest.raises(RewriterError) as caught:
        await rewrites(rewriter.url, candidates=3)
    assert caught.value.reason == "error"
