"""The playground's questions: the base's answer and the client's, through the same code as a client's request."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
import yaml

from tests.fakes.base import ANSWER, FakeBase, answers, never
from tests.fakes.http import until
from tests.fakes.policies import KEY, plain, policy, write
from tests.fakes.proxy import Reply, Running, Starter
from tests.fakes.rewriter import FakeRewriter, thrilled
from visa_proxy.policy.schema import Shield
from visa_proxy.server.components import Instruments
from visa_proxy.server.ui import play
from visa_proxy.server.ui.changes import MAX_WORDS, changes
from visa_proxy.server.ui.sketch import TRIED

BOLD = {"stimulation": 1.0, "hedonism": 0.5}


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    """Its tenant's default profile passes answers through."""
    return await start(base.url, rewriter.url, text=policy(default="off"), instruments=instruments)


async def post(proxy: Running, path: str, **body: Any) -> Reply:
    return await proxy.post({"tenant": "acme", **body}, {"Origin": proxy.url}, f"/ui/api/{path}")


async def ask(proxy: Running, **body: Any) -> list[tuple[str, Any]]:
    """Name and data of each event."""
    reply = await post(proxy, "ask", **{"question": "How do I cook rice?", "model": "sample", **body})
    assert reply.status == 200, reply.body
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    return [
        (name, json.loads(data)) for name, data in re.findall(r"^event: (\w+)\ndata: (.*)\n\n", reply.body.decode(), re.MULTILINE)
    ]


def said(events: list[tuple[str, Any]], name: str) -> str:
    return "".join(data["text"] for each, data in events if each == name)


def one(events: list[tuple[str, Any]], name: str) -> Any:
    [found] = [data for each, data in events if each == name]
    return found


async def test_both_answers_stream_and_the_rewrite_is_measured(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    events = await ask(proxy, values=BOLD)
    assert said(events, "base") == ANSWER
    assert said(events, "rewritten") == thrilled(ANSWER)
    assert [name for name, _ in events][-1] == "end"
    assert len([name for name, _ in events if name == "base"]) > 3
    visa = one(events, "visa")
    assert visa["status"] == "adapted"
    assert visa["profile"] == TRIED
    assert set(visa["values"]) == {"before", "target", "after"}
    assert visa["values"]["target"]["stimulation"] > visa["values"]["before"]["stimulation"]
    assert visa["similarity"]["after"] > visa["similarity"]["before"]
    sent = json.loads(base.seen[-1].body)
    assert sent == {"messages": [{"role": "user", "content": "How do I cook rice?"}], "stream": True, "model": "sample"}
    assert "cookie" not in dict(base.seen[-1].headers) and "origin" not in dict(base.seen[-1].headers)
    assert len(rewriter.asked) == 1


async def test_the_base_is_heard_while_it_speaks(proxy: Running, base: FakeBase) -> None:
    base.hold = asyncio.Event()
    body = {"tenant": "acme", "question": "How?", "model": "sample", "values": BOLD}
    async with proxy.http.post(f"{proxy.url}/ui/api/ask", json=body, headers={"Origin": proxy.url}) as got:
        first = await got.content.readuntil(b"\n\n")
        assert first.startswith(b"event: base\n")
        assert not base.hold.is_set()
        base.hold.set()
        rest = await got.content.read()
    assert b"event: rewritten" in rest and rest.endswith(b"event: end\ndata: {}\n\n")


async def test_a_client_with_the_same_profile_gets_the_same(proxy: Running) -> None:
    events = await ask(proxy, values=BOLD)
    reply = await proxy.post(
        {"model": "sample", "messages": [{"role": "user", "content": "How do I cook rice?"}]}, {"X-Visa-Profile": "bold"}
    )
    visa = reply.json["visa"]
    assert reply.json["choices"][0]["message"]["content"] == said(events, "rewritten")
    assert visa["values"] == one(events, "visa")["values"]


async def test_an_instruction_is_translated_and_a_target_is_absolute(proxy: Running) -> None:
    instructed = one(await ask(proxy, instruction="Make this much more daring and adventurous."), "visa")
    assert instructed["instruction_confidence"] > 0.5
    aimed = one(await ask(proxy, mode="target", values=BOLD), "visa")
    assert {name: level for name, level in aimed["values"]["target"].items() if level} == BOLD


async def test_the_words_that_changed_are_told_with_what_is_verbatim(proxy: Running, base: FakeBase) -> None:
    base.texts = ["Boil the rice for 12 minutes. Then let it rest."]
    found = one(await ask(proxy, values=BOLD), "changes")
    assert "".join(piece["text"] for piece in found["base"]) == base.texts[0]
    assert "".join(piece["text"] for piece in found["rewritten"]) == thrilled(base.texts[0])
    assert [piece["text"].strip() for piece in found["rewritten"] if piece["kind"] == "kept"] == ["12"]
    assert "Make it an exciting adventure." in [
        piece["text"].strip() for piece in found["rewritten"] if piece["kind"] == "changed"
    ]
    assert [piece["text"] for piece in found["base"] if piece["kind"] == "changed"] == ["Boil"]


async def test_sliders_all_at_zero_leave_the_answer_alone(proxy: Running, rewriter: FakeRewriter) -> None:
    events = await ask(proxy)
    assert one(events, "visa")["status"] == "skipped:no-offset"
    assert said(events, "rewritten") == said(events, "base") == ANSWER
    assert not rewriter.asked


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"tenant": "nobody"}, 404, "no tenant 'nobody'"),
        ({"question": "  "}, 400, "question"),
        ({"question": "x" * 8001}, 400, "question"),
        ({"values": {"courage": 1}}, 400, "unknown value 'courage'"),
        ({"values": {"power": 2}}, 400, "values.power"),
        ({"values": {"power": "1"}}, 400, "values.power"),
        ({"mode": "target", "values": {"power": 1}, "instruction": "kinder"}, 400, "mode target with an instruction"),
        ({"surprise": 1}, 400, "surprise"),
    ],
)
async def test_a_wrong_question_is_refused_before_the_base_is_asked(
    proxy: Running, base: FakeBase, body: dict[str, Any], status: int, told: str
) -> None:
    reply = await post(proxy, "ask", **{"question": "How?", "model": "sample", **body})
    assert reply.status == status
    assert told in reply.json["error"]["message"]
    assert not [seen for seen in base.seen if seen.method == "POST"]


async def test_only_json_of_a_bounded_size_is_read(proxy: Running) -> None:
    headers = {"Origin": proxy.url}
    assert (await proxy.post(b"x" * 70_000, headers, "/ui/api/ask")).status == 413
    assert (await proxy.post(b"{", headers, "/ui/api/ask")).status == 400
    assert (await proxy.post(b"{}", {**headers, "Content-Type": "text/plain"}, "/ui/api/ask")).status == 400


async def test_a_base_that_fails_is_told_in_the_stream(proxy: Running, base: FakeBase) -> None:
    missing = await ask(proxy, model="another")
    assert "does not exist" in one(missing, "error")["message"]
    base.answer = answers(b"oops", status=500)
    assert one(await ask(proxy, values=BOLD), "error")["message"]
    assert [name for name, _ in missing] == ["error", "end"]


async def test_an_endless_answer_is_cut_off(proxy: Running, base: FakeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "MAX_ANSWER", 20)
    events = await ask(proxy, values=BOLD)
    assert "more than 20 characters" in one(events, "error")["message"]


async def test_a_question_that_takes_too_long_ends(proxy: Running, base: FakeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "TOTAL_S", 0.2)
    base.answer = never
    assert "longer than" in one(await ask(proxy), "error")["message"]
    await until(lambda: base.running == 0)


async def test_few_questions_run_at_once_and_those_whose_asker_goes_end(proxy: Running, base: FakeBase) -> None:
    base.answer = never
    asking = [asyncio.create_task(ask(proxy)) for _ in range(play.AT_ONCE)]
    await until(lambda: base.running == play.AT_ONCE)
    assert (await post(proxy, "ask", question="One more?", model="sample")).status == 429
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await until(lambda: base.running == 0)
    base.answer = None
    assert said(await ask(proxy), "base") == ANSWER


async def test_a_proxy_that_rewrites_nothing_says_so(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    reply = await post(proxy, "ask", tenant="plain", question="How?", model="sample")
    assert reply.status == 503
    assert "not needed" in reply.json["error"]["message"]


async def test_a_saved_profile_is_yaml_that_the_policy_takes(proxy: Running) -> None:
    kept = (await post(proxy, "profile", name="daring", values={**BOLD, "power": 0}, instruction="Zum Glück: kühn!")).json
    assert kept["yaml"].startswith("  daring:\n")
    assert yaml.safe_load(kept["yaml"])["daring"] == {"mode": "offset", "values": BOLD, "instruction": "Zum Glück: kühn!"}
    assert yaml.safe_load(kept["permission"])["request"]["profiles"] == ["aim", "bold", "kind", "off", "daring"]
    before = policy(default="off")
    request = before[before.index("request:") :].splitlines()[0]
    text = before.replace("profiles:\n", f"profiles:\n{kept['yaml']}", 1).replace(request, kept["permission"])
    write(proxy.policies, text)
    await until(lambda: "daring" in proxy.gateway.watcher.current.tenants["acme"].profiles)
    assert not proxy.gateway.watcher.problems
    assert "X-Visa-Profile: daring" in kept["curl"]
    assert f"{proxy.url}/v1" in kept["python"]
    compile(kept["python"], "printed", "exec")
    reply = await proxy.post({"model": "sample", "messages": [{"role": "user", "content": "How?"}]}, {"X-Visa-Profile": "daring"})
    assert reply.headers["X-Visa-Profile"] == "daring"
    assert (await post(proxy, "profile", name="daring", values=BOLD)).json["permission"] == ""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"name": "no good", "values": BOLD}, "no good"),
        ({"name": "-x", "values": BOLD}, "-x"),
        ({"name": "fine"}, "changes nothing"),
        ({"name": "fine", "values": {"power": 0}}, "changes nothing"),
        ({"name": "fine", "values": {"courage": 1}}, "unknown value"),
        ({"values": BOLD}, "name"),
    ],
)
async def test_what_no_policy_may_hold_is_not_printed(proxy: Running, body: dict[str, Any], told: str) -> None:
    reply = await post(proxy, "profile", **body)
    assert reply.status == 400
    assert told in reply.json["error"]["message"]


async def test_what_is_tried_out_is_counted_apart(proxy: Running) -> None:
    await ask(proxy, values=BOLD)
    metrics = (await proxy.get("/metrics")).body.decode()
    assert f'visa_answers_total{{profile="{TRIED}",status="adapted",tenant="acme"}} 1.0' in metrics
    assert KEY not in metrics


def test_texts_that_are_too_long_are_not_compared() -> None:
    long = "word " * MAX_WORDS
    assert changes(long + "more", "word", Shield()) is None
    assert changes(long.rstrip(), "word", Shield()) is not None
    empty = changes("", "", Shield())
    assert empty is not None and not empty.base and not empty.rewritten
