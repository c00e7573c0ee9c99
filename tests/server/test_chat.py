"""POST /v1/chat/completions, whole answers: what is rewritten, what is left alone, and what is said about it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.fakes.base import ANSWER, HEAD, QUESTION, USAGE, FakeBase, answers, completion
from tests.fakes.http import until
from tests.fakes.policies import plain, policy, write
from tests.fakes.proxy import BASE_KEY, Running, Starter
from tests.fakes.rewriter import FakeRewriter, asked_text
from visa_proxy.policy.config import Endpoint
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    return await start(base.url, rewriter.url, instruments=instruments)


async def test_an_answer_is_rewritten_verified_and_everything_else_stays_the_bases(
    proxy: Running, base: FakeBase, rewriter: FakeRewriter
) -> None:
    answer = await proxy.client.chat.completions.with_raw_response.create(**ASK)
    parsed = answer.parse()
    text = parsed.choices[0].message.content
    assert text is not None
    assert text.startswith("For the thrill of it, rinse the rice")
    assert "15 minutes, as shown at https://example.org/rice." in text
    assert answer.headers["x-visa-status"] == "adapted"
    assert answer.headers["x-visa-tenant"] == "acme"
    assert answer.headers["x-visa-profile"] == "bold"
    assert answer.headers["x-request-id"].startswith("req_")
    body = json.loads(answer.text)
    visa = body.pop("visa")
    body["choices"][0]["message"]["content"] = ANSWER
    assert body == completion(ANSWER)
    assert visa["status"] == "adapted"
    assert visa["similarity"]["after"] > visa["similarity"]["before"]
    assert visa["consistency"] >= 0.6
    assert visa["preserved_spans"] == 2
    assert set(visa["values"]) == {"before", "target", "after"}
    assert visa["usage"] == {"candidates": 1, "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    assert {"detect", "preserve", "rewrite", "verify"} <= set(visa["timings_ms"])
    # The base got the request as it was, the rewriter placeholders instead of what must survive.
    assert json.loads(base.seen[0].body) == ASK
    assert base.seen[0].header("authorization") == f"Bearer {BASE_KEY}"
    assert "⟦1⟧ minutes" in asked_text(rewriter.asked[0])
    assert "https://" not in asked_text(rewriter.asked[0])


async def test_the_profile_by_header_by_model_and_by_default(proxy: Running, base: FakeBase) -> None:
    suffixed = {**ASK, "model": "sample@off"}
    for body, headers, profile, status in [
        (ASK, {}, "bold", "adapted"),
        (ASK, {"X-Visa-Profile": "off"}, "off", "passthrough"),
        (suffixed, {}, "off", "passthrough"),
        (suffixed, {"X-Visa-Profile": "bold"}, "bold", "adapted"),
        ({**ASK, "model": "sample@"}, {}, "bold", "adapted"),
        (ASK, {"X-Visa-Profile": ""}, "bold", "adapted"),
        (ASK, {"X-Visa-Profile": " aim "}, "aim", "adapted"),
    ]:
        reply = await proxy.post(body, headers)
        assert (reply.status, reply.headers["x-visa-profile"], reply.headers["x-visa-status"]) == (200, profile, status), headers
        assert json.loads(base.seen[-1].body)["model"] == "sample"


async def test_a_base_with_a_model_of_its_own_needs_none_in_the_request(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, bases={"default": Endpoint(base.url, model="sample")}, text=policy(default="off"))
    for body in ({"messages": ASK["messages"]}, {**ASK, "model": ""}, {**ASK, "model": "@off"}):
        assert (await proxy.post(body)).status == 200
        assert json.loads(base.seen[-1].body)["model"] == "sample"
        assert base.seen[-1].header("authorization") is None


async def test_instructions_of_the_caller_and_of_the_profile(proxy: Running, rewriter: FakeRewriter) -> None:
    clear = await proxy.post(ASK, {"X-Visa-Instruction": "Make it a thrilling adventure."})
    visa = clear.json["visa"]
    assert (clear.status, visa["status"]) == (200, "adapted")
    assert visa["instruction_confidence"] > 0.5
    assert "translate" in visa["timings_ms"]
    kind = await proxy.post(ASK, {"X-Visa-Profile": "kind"})
    assert kind.json["visa"]["values"]["target"]["benevolence"] > 0.2
    # Nothing to go by: `bold` still counts, and an instruction alone is honestly not understood.
    unclear = await proxy.post(ASK, {"X-Visa-Instruction": "xyzzy 42"})
    assert unclear.json["visa"]["status"] == "adapted"


async def test_an_instruction_in_utf8(proxy: Running) -> None:
    reply = await proxy.post(ASK, {"X-Visa-Instruction": "Make it a thrilling adventure — très spontané!"})
    assert reply.json["visa"]["status"] == "adapted"


async def test_an_aligned_answer_is_left_alone(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{skip_above: -1}"))
    reply = await proxy.post(ASK)
    assert reply.json["visa"]["status"] == reply.headers["x-visa-status"] == "aligned"
    assert reply.json["choices"][0]["message"]["content"] == ANSWER
    assert not rewriter.asked


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"response_format": {"type": "json_object"}}, "skipped:json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, "skipped:json"),
        ({"logprobs": True}, "skipped:logprobs"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, "skipped:audio"),
        ({"web_search_options": {}}, "skipped:citations"),
        ({"structured_outputs": {"regex": "[A-Z].*"}}, "skipped:constrained"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "skipped:constrained"),
        ({"guided_choice": ["yes", "no"]}, "skipped:constrained"),
        ({"return_token_ids": True}, "skipped:token-ids"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_whose_answers_are_not_rewritten(
    proxy: Running, base: FakeBase, change: dict[str, Any], status: str, stream: bool
) -> None:
    reply = await proxy.post({**ASK, **change, "stream": stream})
    assert (reply.status, reply.headers["x-visa-status"]) == (200, status)
    assert b"visa" not in reply.body
    assert b"rinse" in reply.body.lower()


@pytest.mark.parametrize(
    "change",
    [
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"modalities": ["text"]},
        {"modalities": 5},
        {"response_format": 3},
        {"return_token_ids": False},
        {"guided_choice": []},
    ],
)
async def test_requests_that_only_look_so(proxy: Running, change: dict[str, Any]) -> None:
    assert (await proxy.post({**ASK, **change})).headers["x-visa-status"] == "adapted"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (
            completion(None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
            "tool-calls",
        ),
        (completion(" ", function_call={"name": "f", "arguments": "{}"}), "tool-calls"),
        (completion(None, refusal="I can't help with that."), "refusal"),
        (completion(""), "empty"),
        (completion(" \n"), "empty"),
        (completion(None), "empty"),
        (completion(), "empty"),
    ],
)
async def test_answers_that_are_not_rewritten(
    proxy: Running, base: FakeBase, rewriter: FakeRewriter, body: dict[str, Any], status: str
) -> None:
    base.answer = answers(body)
    reply = await proxy.post(ASK)
    assert reply.headers["x-visa-status"] == f"skipped:{status}"
    got = reply.json
    assert got.pop("visa")["status"] == f"skipped:{status}"
    assert got == body
    assert not rewriter.asked


async def test_every_choice_is_rewritten_on_its_own(proxy: Running, base: FakeBase) -> None:
    base.texts = [ANSWER, "", "Add salt. Stir it well for 2 minutes."]
    reply = await proxy.post(ASK)
    body = reply.json
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert texts[0].startswith("For the thrill")
    assert texts[1] == ""
    assert texts[2].startswith("For the thrill of it, add salt")
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [each["status"] for each in body["visa"]["choices"]] == ["adapted", "skipped:empty", "adapted"]
    assert body["visa"]["status"] == reply.headers["x-visa-status"] == "skipped:empty"
    assert {key: body[key] for key in HEAD} == HEAD
    assert body["usage"] == USAGE
    base.texts = [ANSWER]
    assert (await proxy.post({**ASK, "n": 2})).json["visa"]["status"] == "adapted"


async def test_unknown_fields_and_odd_messages_reach_the_base(proxy: Running, base: FakeBase) -> None:
    body = {
        **ASK,
        "messages": [
            {"role": "system", "content": "Be brief.", "x": 1},
            {
                "role": "user",
                "content": [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": "data:,"}}],
            },
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
        "x_vendor": {"deep": [1.5, None, "é"]},
        "seed": 2**63,
    }
    raw = json.dumps(body, indent=3, ensure_ascii=False).encode()
    reply = await proxy.post(raw)
    assert reply.headers["x-visa-status"] == "adapted"
    assert base.seen[0].body == raw


async def test_the_clients_request_id_is_kept_and_a_bad_one_replaced(proxy: Running, base: FakeBase) -> None:
    kept = await proxy.post(ASK, {"X-Request-Id": "trace-1", "X-Visa-Profile": "off"})
    assert kept.headers["x-request-id"] == "trace-1" == base.seen[-1].header("x-request-id")
    made = await proxy.post(ASK, {"X-Request-Id": "x" * 500, "X-Visa-Profile": "off"})
    assert made.headers["x-request-id"].startswith("req_")
    none = await proxy.post(ASK, {"X-Visa-Profile": "off"})
    assert none.headers["x-request-id"] == base.seen[-1].header("x-request-id")


async def test_experiments_share_out_callers(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    text = policy(extra="experiments:\n  - {name: ab, unit: user, arms: {bold: 50, off: 50}}")
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=text)
    arms = {}
    for user in "abcdef":
        replies = [await proxy.post({**ASK, "user": user}) for _ in range(2)]
        assert replies[0].headers["x-visa-experiment"] == replies[1].headers["x-visa-experiment"]
        arms[user] = replies[0].headers["x-visa-experiment"]
    assert set(arms.values()) == {"ab/bold", "ab/off"}
    assert "x-visa-experiment" not in (await proxy.post(ASK)).headers
    assert "x-visa-experiment" not in (await proxy.post({**ASK, "user": "a"}, {"X-Visa-Profile": "off"})).headers


async def test_models_lists_the_bases_and_the_profiles(proxy: Running) -> None:
    models = [model async for model in proxy.client.models.list()]
    assert [model.id for model in models] == ["sample", "sample@aim", "sample@bold", "sample@kind", "sample@off"]
    assert (await proxy.get("/v1/models")).json["data"][0]["max_model_len"] == 4096


async def test_an_edited_policy_counts_within_a_second(proxy: Running) -> None:
    assert (await proxy.post(ASK)).headers["x-visa-profile"] == "bold"
    write(proxy.policies, policy(default="off"))
    started = time.monotonic()
    while (await proxy.post(ASK)).headers["x-visa-profile"] != "off":
        assert time.monotonic() - started < 3
        await asyncio.sleep(0.02)
    write(proxy.policies, policy().replace("stimulation: 1.0", "stimulatoin: 1.0"))
    await until(lambda: bool(proxy.gateway.watcher.problems), 3)
    assert (await proxy.post(ASK)).headers["x-visa-profile"] == "off"
    write(proxy.policies, policy(key="sk-new"))
    await until(lambda: not proxy.gateway.watcher.problems, 3)
    with pytest.raises(openai.AuthenticationError):
        await proxy.client.chat.completions.create(**ASK)


async def test_models_are_loaded_when_an_edited_policy_first_needs_them(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=plain())
    assert proxy.gateway.components.state == "not needed"
    assert (await proxy.post(ASK)).headers["x-visa-status"] == "passthrough"
    write(proxy.policies, policy())
    await until(lambda: proxy.gateway.components.state == "ready", 10)
    assert (await proxy.post(ASK)).headers["x-visa-status"] == "adapted"


async def test_concurrent_requests_do_not_mix(proxy: Running, base: FakeBase) -> None:
    async def answer(request: web.Request, raw: bytes) -> web.StreamResponse:
        question = json.loads(raw)["messages"][0]["content"]
        return web.json_response(completion(f"Take {question} steps to the left. Then wait."))

    base.answer = answer
    replies = await asyncio.gather(
        *(proxy.post({**ASK, "messages": [{"role": "user", "content": str(i)}]}) for i in range(100, 124))
    )
    for i, reply in enumerate(replies, 100):
        assert f"ake {i} steps" in reply.json["choices"][0]["message"]["content"]
