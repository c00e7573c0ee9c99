"""What is compared: specs, and what each system asks and makes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from tests.evaluation.samples import ANSWER, case
from tests.fakes.http import closed_port
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from visa_proxy.errors import ConfigError, RewriterError
from visa_proxy.evaluation.specs import parse_system, parse_systems, sized
from visa_proxy.evaluation.systems import House, System
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.rewriter.chat import BUNDLED_MODEL, ChatRewriter
from visa_proxy.server.components import Instruments
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.preserve import protect
from visa_proxy.training.rewards.spans import kept

WRONG = {
    "no name": ("echo", "NAME=SPEC"),
    "odd name": ("a|b=echo", "NAME=SPEC"),
    "unknown": ("a=magic", "found 'magic'"),
    "no model": ("a=rules:http://h/v1", "no model behind a #"),
    "no URL": ("a=rules:h#m", "no URL in front of the #"),
    "a password": ("a=rules:http://u:hush@h/v1#m", "no URL in front of the #"),
    "no folder": ("a=model:none", "there is no folder none"),
    "an odd size": ("a@8X=echo", "with @8B or the like"),
    "a URL without a model": ("a=simple:runs#m", "no URL in front of the #"),
    "no config": ("a=shield:none.yaml", "there is no file"),
}


@pytest.mark.parametrize(("given", "problem"), WRONG.values(), ids=WRONG)
def test_a_bad_spec_is_named(given: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_systems([given])
    assert problem in str(error.value) and "hush" not in str(error.value)


def test_every_bad_spec_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_systems(["a=echo", "a=echo", "b=magic"])
    assert len(error.value.problems) == 2


def test_a_name_may_hold_a_size() -> None:
    assert sized(parse_system("grpo@0.6B=echo").name) == ("grpo", 0.6e9)
    assert sized("a-b@2M") == ("a-b", 2e6) and sized("grpo") is None


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"--system a: found no weights in .* a folder with \*\.safetensors"):
        parse_system(f"a=model:{tmp_path}")


def test_an_identity_is_of_what_answers() -> None:
    one, same, other = (
        parse_system(text) for text in ("a=rules:http://h/v1#m", "b=rules:http://h/v1/#m", "a=rules:http://h/v1#n")
    )
    assert one.identity() == same.identity() != other.identity()


def test_the_identity_of_a_shield_is_that_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "visa.yaml"
    file.write_text("a: 1")
    spec = parse_system(f"a=shield:{file}")
    before = spec.identity()
    file.write_text("a: 2")
    assert spec.identity() != before


@asynccontextmanager
async def opened(spec: str, keys: dict[str, str] | None = None, shield: Shield | None = None) -> AsyncIterator[System]:
    @asynccontextmanager
    async def open_shield(config: Path | None) -> AsyncIterator[Shield]:
        assert shield is not None
        yield shield

    async with House(open_shield, keys or {}, timeout_s=10.0) as house:
        yield await house.open(parse_system(spec))


async def test_an_echo_is_the_answer() -> None:
    async with opened("a=echo") as system:
        assert (await system.rewrite(case())).text == ANSWER


async def test_a_rewriter_sees_placeholders_and_gets_its_spans_back(rewriter: FakeRewriter) -> None:
    sample = replace(case(answer=f"{ANSWER} It takes 17 minutes with TrailPro wax."), glossary=("TrailPro wax",))
    async with opened(f"a=rewriter:{rewriter.url}#m") as system:
        made = await system.rewrite(sample)
    (asked,) = rewriter.asked
    assert "17" not in asked_text(asked) and "TrailPro" not in asked_text(asked) and "⟦1⟧" in asked_text(asked)
    assert (asked["model"], asked["temperature"]) == ("m", 0.0)
    assert made.text == thrilled(sample.answer)


async def test_a_rewriter_that_loses_placeholders_is_not_refused(rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: "It takes ⟦1⟧ minutes, or ⟦9⟧."
    async with opened(f"a=rewriter:{rewriter.url}#m") as system:
        made = await system.rewrite(case(answer="It takes 17 minutes with 3 brushes."))
    assert made.text == "It takes 17 minutes, or ⟦9⟧."


async def test_a_long_answer_goes_in_parts(rewriter: FakeRewriter) -> None:
    async def shouted(request: web.Request, raw: bytes) -> web.StreamResponse:
        prompt: str = orjson.loads(raw)["messages"][0]["content"]
        return web.json_response(reply(prompt.partition("\n")[2].upper()))

    rewriter.answer = shouted
    sample = case(answer=" ".join([ANSWER] * 20))
    async with opened(f"a=compact:{rewriter.url}#m") as system:
        made = await system.rewrite(sample)
    assert len(rewriter.asked) > 1 and made.text == sample.answer.upper()
    assert all(body["messages"][0]["content"].startswith("stimulation +2\n") for body in rewriter.asked)


@pytest.mark.parametrize("kind", ["simple", "rules"])
async def test_a_prompted_model_sees_the_answer_as_it_is(rewriter: FakeRewriter, kind: str) -> None:
    sample = case(answer=f"{ANSWER} It takes 17 minutes.")
    async with opened(f"a={kind}:{rewriter.url}#m") as system:
        made = await system.rewrite(sample)
    assert made.text == thrilled(sample.answer)
    assert [message["role"] for message in rewriter.asked[0]["messages"]] == ["system", "user"]


async def test_a_folder_is_a_rewriter() -> None:
    sample = case(answer=f"{ANSWER} It takes 17 minutes.")
    async with opened(f"a=model:{BUNDLED_MODEL}") as system:
        first, again = await asyncio.gather(system.rewrite(sample), system.rewrite(sample))
    assert first == again and "17 minutes" in first.text and first.text != sample.answer
    assert kept(protect(sample.answer).spans, first.text) == 1


async def test_thoughts_are_cut_off(rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: f"<think>Hm, <answer>no</answer>.</think>\n<answer>\n{text} Go!\n</answer>"
    async with opened(f"a=cot:{rewriter.url}#m") as system:
        assert (await system.rewrite(case())).text == f"{ANSWER} Go!"
    system_prompt = rewriter.asked[0]["messages"][0]["content"]
    assert "<answer>" in system_prompt and "Answer with the rewritten answer only" not in system_prompt


@pytest.mark.parametrize(
    ("kind", "said", "reason"),
    [("cot", "I will not mark it.", "unmarked"), ("simple", "  ", "empty"), ("simple", "<think>x</think> ", "empty")],
)
async def test_what_is_no_answer_is_an_error(rewriter: FakeRewriter, kind: str, said: str, reason: str) -> None:
    rewriter.rule = lambda text: said
    async with opened(f"a={kind}:{rewriter.url}#m") as system:
        with pytest.raises(RewriterError) as error:
            await system.rewrite(case())
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "error"), (404, "unknown-model"), (429, "unavailable"), (500, "error"), (503, "unavailable")]
)
async def test_a_failing_call_has_a_reason(rewriter: FakeRewriter, status: int, reason: str) -> None:
    async def fails(request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    rewriter.answer = fails
    async with opened(f"a=rules:{rewriter.url}#m") as system:
        with pytest.raises(RewriterError) as error:
            await system.rewrite(case())
    assert error.value.reason == reason


async def test_an_answer_that_was_cut_is_an_error(rewriter: FakeRewriter) -> None:
    async def cut(request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response(reply("On and on", "length"))

    rewriter.answer = cut
    async with opened(f"a=rules:{rewriter.url}#m") as system:
        with pytest.raises(RewriterError) as error:
            await system.rewrite(case())
    assert error.value.reason == "endless"


async def test_the_key_goes_to_its_own_system(rewriter: FakeRewriter) -> None:
    seen: list[str | None] = []

    async def look(request: web.Request, raw: bytes) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(reply("Fine."))

    rewriter.answer = look
    for name in ("a", "b"):
        async with opened(f"{name}=simple:{rewriter.url}#m", {"a": "hush"}) as system:
            await system.rewrite(case())
    assert seen == ["Bearer hush", None]


async def test_the_shield_verifies(rewriter: FakeRewriter, instruments: Instruments) -> None:
    async with new_session() as session:
        shield = Shield(
            instruments.detector,
            instruments.translator,
            instruments.facts,
            ChatRewriter(HttpEndpoint(session, rewriter.url, name="rewriter"), model="m"),
        )
        async with opened("a=shield", shield=shield) as system:
            good = await system.rewrite(case())
            rewriter.rule = lambda text: "Do something else."
            bad = await system.rewrite(case())
    assert (good.status, good.text) == ("adapted", thrilled(ANSWER))
    assert bad.status.startswith("fallback:") and bad.text == ANSWER


async def test_a_shield_without_its_rewriter_is_an_error(instruments: Instruments) -> None:
    async with new_session() as session:
        gone = HttpEndpoint(session, f"http://127.0.0.1:{closed_port()}/v1", name="rewriter")
        shield = Shield(instruments.detector, instruments.translator, instruments.facts, ChatRewriter(gone, model="m"))
        async with opened("a=shield", shield=shield) as system:
            with pytest.raises(RewriterError) as error:
                await system.rewrite(case())
    assert error.value.reason == "unavailable"
