"""`streaming: window`: verified text leaves while the base model still writes, in order, and never more than is verified."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.fakes.base import QUESTION, FakeBase, chunk, delta, event, frames, stream, streams
from tests.fakes.events import events, text_of
from tests.fakes.http import until
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, asked_text, reply
from visa_proxy.server.components import Instruments
from visa_proxy.shield.windows import Cutter

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
SAID = " Make it an exciting adventure."
LONG = "\n\n".join(
    [
        "Rinse the rice under cold water until it runs clear. Use two cups of water for each cup of rice.",
        "Bring it to a boil in a heavy pot. Turn the heat down and cover the pot with a lid. Let it cook for 15 minutes.",
        "Take the pot off the heat. Leave it covered while the steam finishes the work. Fluff the rice with a fork.",
        "Keep leftovers in the fridge and eat them within a day. Reheat them until they are hot all the way through.",
        "A pinch of salt brings out the taste. Some cooks add a bay leaf or a little butter to the water.",
    ]
)


def adventurous(text: str) -> str:
    """A rewrite that can be taken out again: what is left must be the base's text."""
    return f"{text}{SAID}"


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    rewriter.rule = adventurous
    base.texts = [LONG]
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))


class Recorder:
    """A client that notes what has reached it so far."""

    def __init__(self) -> None:
        self.raw = b""
        self.headers: Any = {}

    async def ask(self, proxy: Running, body: Any = ASK, **headers: str) -> None:
        async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers) as got:
            self.headers = got.headers
            async for piece in got.content.iter_any():
                self.raw += piece

    @property
    def chunks(self) -> list[Any]:
        """Whole events so far; comments and [DONE] aside."""
        return events(self.raw.rpartition(b"\n\n")[0])

    def text(self, index: int = 0) -> str:
        return text_of(self.chunks, index)


async def test_rewritten_text_arrives_while_the_base_still_writes(proxy: Running, base: FakeBase) -> None:
    parts, go_on = frames([LONG]), asyncio.Event()
    half = len(parts) // 2

    async def pausing(request: web.Request, _: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for i, part in enumerate(parts):
            if i == half:
                await go_on.wait()
            await response.write(part)
        return response

    base.answer = pausing
    client = Recorder()
    asking = asyncio.create_task(client.ask(proxy))
    await until(lambda: SAID in client.text(), 10, "a rewritten window at the client")
    assert base.running == 1, "the base has finished"
    assert not client.raw.endswith(b"[DONE]\n\n")
    go_on.set()
    await asking
    assert client.text().replace(SAID, "") == LONG
    assert client.headers["x-visa-stream-mode"] == "window"
    visa = client.chunks[-1]["visa"]
    assert visa["status"] == "adapted"
    assert visa["windows"]["total"] >= 3
    assert visa["windows"]["adapted"] == client.text().count(SAID) >= 2
    assert visa["usage"]["completion_tokens"] == 40 * visa["usage"]["candidates"] > 0
    assert visa["similarity"]["after"] > visa["similarity"]["before"]


async def test_windows_leave_in_order_however_long_each_takes(proxy: Running, rewriter: FakeRewriter) -> None:
    chance = random.Random(1)

    async def dawdling(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(json.loads(raw))
        await asyncio.sleep(chance.choice([0, 0.05, 0.3]))
        return web.json_response(reply(adventurous(text)))

    rewriter.answer = dawdling
    for _ in range(3):
        client = Recorder()
        await client.ask(proxy)
        assert client.text().replace(SAID, "") == LONG
        assert client.text().count(SAID) >= 2


async def test_a_window_that_cannot_be_verified_is_the_base_s_own(proxy: Running, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: "Pay 900 dollars at once to a stranger." if "heat" in text else adventurous(text)
    client = Recorder()
    await client.ask(proxy)
    assert "stranger" not in client.text()
    assert client.text().replace(SAID, "") == LONG
    visa = client.chunks[-1]["visa"]
    assert visa["status"] == "adapted"
    assert visa["windows"]["adapted"] >= 1
    assert sum(count for status, count in visa["windows"].items() if status.startswith("fallback:unverified-")) >= 1


async def test_the_rewriter_is_told_where_in_the_answer_it_is(proxy: Running, base: FakeBase, rewriter: FakeRewriter) -> None:
    base.hold = asyncio.Event()
    parts = frames([LONG])
    half = "".join(json.loads(part[6:])["choices"][0]["delta"].get("content") or "" for part in parts[: len(parts) // 2])
    closed = "".join(window.text for window in Cutter().feed(half))
    client = Recorder()
    asking = asyncio.create_task(client.ask(proxy))
    await until(lambda: client.text().replace(SAID, "") == closed, 10, "every window that the first half closes")
    early, read = len(rewriter.asked), client.text()
    base.hold.set()
    await asking
    prompts = [body["messages"][-1]["content"] for body in rewriter.asked]
    outlines = [prompt.partition("Earlier parts:\n")[2].partition("\nThe reader has")[0] for prompt in prompts]
    # Requests that are made at the same time arrive in any order.
    lines = sorted(0 if not outline else len(outline.partition("\n\n")[0].split("\n")) for outline in outlines)
    assert lines == list(range(len(prompts))), "one line more for each window"
    assert all(outline.startswith("- Rinse the rice under cold water") for outline in outlines if outline)
    # What was asked after the pause was asked when all before it had left.
    assert 0 < early < len(prompts)
    tails = [prompt.partition("has just read:\n")[2].partition("\n\nAnswer to rewrite:")[0] for prompt in prompts[early:]]
    assert read[-300:].strip() in tails
    assert all(len(tail) > 200 and tail in client.text() for tail in tails)
    assert all(QUESTION in prompt for prompt in prompts)


async def test_an_instruction_is_translated_once_for_all_windows(proxy: Running) -> None:
    client = Recorder()
    await client.ask(proxy, **{"X-Visa-Profile": "kind"})
    visa = client.chunks[-1]["visa"]
    assert visa["windows"]["total"] >= 3
    assert visa["instruction_confidence"] > 0.5


async def test_every_choice_has_windows_of_its_own(proxy: Running, base: FakeBase) -> None:
    other = LONG.replace("rice", "barley")
    base.answer = streams(*frames([LONG, other]))
    client = Recorder()
    await client.ask(proxy, {**ASK, "n": 2})
    assert client.text(0).replace(SAID, "") == LONG
    assert client.text(1).replace(SAID, "") == other
    visa = client.chunks[-1]["visa"]
    assert [each["index"] for each in visa["choices"]] == [0, 1]
    assert all(each["windows"]["total"] >= 3 for each in visa["choices"])
    assert visa["usage"]["candidates"] == sum(each["usage"]["candidates"] for each in visa["choices"])


async def test_a_comment_keeps_the_connection_alive(proxy: Running, rewriter: FakeRewriter, short_keep_alive: float) -> None:
    async def slow(request: web.Request, raw: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.json_response(reply(adventurous(asked_text(json.loads(raw)))))

    rewriter.answer = slow
    client = Recorder()
    await client.ask(proxy)
    assert client.raw.count(b": keep-alive\n\n") >= 4
    assert client.text().replace(SAID, "") == LONG


async def test_code_is_not_held_back(proxy: Running, base: FakeBase) -> None:
    """The code of an answer is the base's own: it needs no rewriter, and its lines come as they are written."""
    code = "```python\nprint(1)\nprint(2)\n"
    hold = asyncio.Event()

    async def pausing(request: web.Request, _: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event(chunk(delta(0, role="assistant", content=code))))
        await hold.wait()
        for part in frames(["print(3)\n```\n"])[1:]:
            await response.write(part)
        return response

    base.answer = pausing
    client = Recorder()
    asking = asyncio.create_task(client.ask(proxy))
    await until(lambda: client.text() == code, 5, "the first lines of code")
    hold.set()
    await asking
    assert client.text() == code + "print(3)\n```\n"
    assert client.chunks[-1]["visa"]["status"] == "skipped:verbatim"


async def test_a_slow_client_slows_the_base(proxy: Running, base: FakeBase) -> None:
    """What is held between a base that pours and a client that does not read is bounded."""
    written = 0
    line = event(chunk(delta(0, content="x = 1\n" * 100)))

    async def pouring(request: web.Request, _: bytes) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event(chunk(delta(0, role="assistant", content="```\n"))))
        while True:
            await response.write(line)
            written += len(line)

    base.answer = pouring
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=ASK) as got:
        assert got.status == 200
        seen, since = -1, time.monotonic()
        begun = since
        while not written or time.monotonic() - since < 1:
            assert time.monotonic() - begun < 20, "the base was never slowed down"
            if written != seen:
                seen, since = written, time.monotonic()
            await asyncio.sleep(0.05)
        assert (base.running, base.gone) == (1, 0), "it waits; it has not ended"
        assert written < 12 * 1024 * 1024, "what the sockets' buffers hold, and the lane"
        got.close()
    await until(lambda: base.gone == 1, 5, "the end of the request at the base")


@pytest.mark.parametrize("at", [3, 20, 60])
async def test_what_the_base_reports_in_the_middle_is_raised(proxy: Running, base: FakeBase, at: int) -> None:
    broken = {"error": {"message": "Out of memory.", "type": "server_error", "param": None, "code": 500}}
    base.answer = streams(*frames([LONG])[:at], event(broken))
    got: list[str] = []

    async def read() -> None:
        async for each in await proxy.client.chat.completions.create(**ASK):
            got.extend(choice.delta.content or "" for choice in each.choices)

    with pytest.raises(openai.APIError, match="Out of memory") as caught:
        await read()
    assert caught.value.code == "500"
    assert LONG.startswith("".join(got).replace(SAID, ""))


async def test_an_error_that_comes_first_is_an_http_error(proxy: Running, base: FakeBase) -> None:
    """Some bases answer 200 and put the refusal into the stream."""
    base.answer = streams(event({"error": {"message": "Too long.", "type": "invalid_request_error", "code": 400}}))
    with pytest.raises(openai.BadRequestError, match="Too long"):
        await proxy.client.chat.completions.create(**ASK)


async def test_stop_sequences_hold_for_rewrites_too(proxy: Running) -> None:
    client = Recorder()
    await client.ask(proxy, {**ASK, "stop": ["exciting adventure"]})
    assert client.text() == LONG
    assert client.chunks[-1]["visa"]["refused"][0] == "stop"


async def test_json_is_never_touched(proxy: Running, base: FakeBase) -> None:
    """Also when nobody asked for it by `response_format`."""
    text = json.dumps({"summary": "Rinse the rice. Cook it for 15 minutes. Let it rest."})
    base.answer = streams(*frames([text]))
    client = Recorder()
    await client.ask(proxy)
    assert client.text() == text
    assert client.chunks[-1]["visa"]["status"] == "skipped:json"


async def test_a_one_shot_stream(proxy: Running, base: FakeBase) -> None:
    """Some servers put role, text and finish reason into a single chunk."""
    base.answer = streams(event(chunk(delta(0, "stop", role="assistant", content=LONG))), b"data: [DONE]\n\n")
    client = Recorder()
    await client.ask(proxy)
    assert client.text().replace(SAID, "") == LONG
    first, last = client.chunks[0]["choices"][0], client.chunks[-1]["choices"][0]
    assert (first["delta"], first["finish_reason"]) == ({"role": "assistant"}, None)
    assert last["finish_reason"] == "stop"
    assert "visa" in client.chunks[-1]


async def test_the_base_s_stream_function_is_used(proxy: Running, base: FakeBase) -> None:
    """Chunks keep whatever else the base put into them."""

    async def odd(request: web.Request, _: bytes) -> web.StreamResponse:
        chunks = [
            chunk(delta(0, role="assistant", content=""), x_new=1),
            chunk(delta(0, reasoning_content="Hm.")),
            chunk(delta(0, content=LONG), x_new=2),
            chunk(delta(0, "stop"), x_new=3),
        ]
        return await stream(request, *(event(each) for each in chunks), b"data: [DONE]\n\n")

    base.answer = odd
    client = Recorder()
    await client.ask(proxy)
    assert client.text().replace(SAID, "") == LONG
    spoken = [each for each in client.chunks if each["choices"] and each["choices"][0]["delta"].get("content")]
    assert {each["x_new"] for each in spoken} == {2}
    assert [each["choices"][0]["delta"]["reasoning_content"] for each in client.chunks if "reasoning_content" in str(each)] == [
        "Hm."
    ]
    assert client.chunks[-1]["x_new"] == 3
