"""A model that LiteLLM's SDK calls: what reaches the provider, what comes back, and every way in which that can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.anthropic import error, messages
from tests.fakes.base import DONE, FakeBase, answers, chunk, delta, event, never, streams
from tests.fakes.events import parsed, text_of
from tests.fakes.http import HOST, closed_port, sending, sends, serving, until
from tests.fakes.needed import needs
from tests.fakes.said import ANSWER, CALLS, REFUSES, TOOLS, USAGE, Says
from visa_proxy.errors import ConfigError, MissingExtra, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm.failover import Failover
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.llm.litellm import LiteLLMEndpoint

pytestmark = needs("litellm")

CHAT: dict[str, Any] = {"model": "voice", "messages": [{"role": "user", "content": "Hello?"}]}
TEXT: dict[str, Any] = {"model": "voice", "prompt": "Hello?"}
RESPONSE: dict[str, Any] = {"model": "voice", "input": "Hello?"}
SURFACES = [("/chat/completions", CHAT), ("/completions", TEXT), ("/responses", RESPONSE)]
IDS = ["chat", "completions", "responses"]


@pytest.fixture
async def model(base: FakeBase) -> LiteLLMEndpoint:
    """A model behind OpenAI's API, by another name than its own."""
    return await loaded("openai/sample", base.url)


@pytest.fixture
async def claude(base: FakeBase) -> LiteLLMEndpoint:
    """One behind Anthropic's API."""
    base.answer = messages()
    return await loaded("anthropic/claude-3-haiku-20240307", base.url.removesuffix("/v1"))


async def loaded(name: str, api_base: str, *, timeout_s: float = 10.0) -> LiteLLMEndpoint:
    endpoint = LiteLLMEndpoint(name, model="voice", api_key="sk-provider", api_base=api_base, timeout_s=timeout_s)
    await endpoint.load()
    return endpoint


async def ask(endpoint: LiteLLMEndpoint, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    async with endpoint.request("POST", path, body=json.dumps(body).encode()) as answer:
        return answer.status, await answer.read()


async def test_a_request_arrives_in_the_providers_form_without_our_headers(base: FakeBase, model: LiteLLMEndpoint) -> None:
    body = {**CHAT, "temperature": 0.5, "max_tokens": 7, "metadata": {"a": "b"}, "stream": False, "stop": None}
    headers = [("Authorization", "Bearer sk-tenant"), ("X-Secret", "1"), ("X-Request-Id", "r1")]
    async with model.request(
        "POST", "/chat/completions?a=b", headers=headers, body=lambda _: json.dumps(body).encode()
    ) as answer:
        assert answer.status == 200
    seen = base.seen[0]
    assert json.loads(seen.body) == {"model": "sample", "messages": CHAT["messages"], "temperature": 0.5, "max_tokens": 7}
    assert (seen.path, seen.header("authorization")) == ("/v1/chat/completions", "Bearer sk-provider")
    assert not {"x-secret", "x-request-id"} & {name for name, _ in seen.headers}


async def test_a_whole_chat_is_openais_under_the_name_that_was_asked_for(base: FakeBase, model: LiteLLMEndpoint) -> None:
    base.says = [TOOLS, REFUSES]
    status, raw = await ask(model, "/chat/completions", CHAT)
    body = json.loads(raw)
    assert (status, body["model"], body["object"], body["usage"]) == (200, "voice", "chat.completion", USAGE)
    first, second = body["choices"]
    assert first["message"]["content"] == TOOLS.text and first["finish_reason"] == "tool_calls"
    assert [each["function"]["arguments"] for each in first["message"]["tool_calls"]] == [each.arguments for each in CALLS]
    assert second == {
        "index": 1,
        "message": {"role": "assistant", "content": None, "refusal": REFUSES.refusal},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert b"provider_specific_fields" not in raw


@pytest.mark.parametrize(("path", "body"), SURFACES[:2], ids=IDS[:2])
async def test_a_stream_comes_as_it_is_written_and_ends_with_its_usage(
    base: FakeBase, model: LiteLLMEndpoint, path: str, body: dict[str, Any]
) -> None:
    base.hold = asyncio.Event()
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with model.request("POST", path, body=json.dumps(asked).encode()) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = answer.chunks()
        raw = await anext(chunks)
        base.hold.set()  # the base had sent half of it
        raw += b"".join([each async for each in chunks])
    found = parsed(raw)
    assert text_of(found) == ANSWER
    assert {each["model"] for each in found} == {"voice"} and len({each["id"] for each in found}) == 1
    assert [each["choices"][0]["finish_reason"] for each in found[:-1]] == [None] * (len(found) - 2) + ["stop"]
    assert found[-1]["choices"] == [] and found[-1]["usage"]["total_tokens"] == USAGE["total_tokens"]
    assert all(each["usage"] is None for each in found[:-1])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", {**CHAT, "n": 2}),
        ("/completions", {**TEXT, "n": 2}),
        ("/completions", {**TEXT, "prompt": ["a", "b"]}),
    ],
)
async def test_of_several_choices_in_a_stream_each_has_its_own_end(
    base: FakeBase, model: LiteLLMEndpoint, path: str, body: dict[str, Any]
) -> None:
    base.says = [Says("One two three."), Says("Four five", cut=True)]
    if body.get("prompt") == ["a", "b"]:
        base.says = [Says("One two three.")]
    status, raw = await ask(model, path, {**body, "stream": True})
    found = parsed(raw)
    assert status == 200 and not any("usage" in each for each in found)
    ends = {choice["index"]: choice["finish_reason"] for each in found for choice in each["choices"] if choice["finish_reason"]}
    if len(base.says) == 2:
        assert (text_of(found, 0), text_of(found, 1)) == ("One two three.", "Four five")
        assert ends == {0: "stop", 1: "length"}
    else:
        assert (text_of(found, 0), text_of(found, 1), ends) == ("One two three.",) * 2 + ({0: "stop", 1: "stop"},)


async def test_tool_calls_stream_piece_by_piece(base: FakeBase, model: LiteLLMEndpoint) -> None:
    base.says = [TOOLS]
    found = parsed((await ask(model, "/chat/completions", {**CHAT, "stream": True}))[1])
    calls = [call for each in found for choice in each["choices"] for call in choice["delta"].get("tool_calls", ())]
    for i, expected in enumerate(CALLS):
        pieces = [call["function"]["arguments"] for call in calls if call["index"] == i]
        assert "".join(pieces) == expected.arguments and len(pieces) > 2
    assert [call["id"] for call in calls if call.get("id")] == [each.id for each in CALLS]


async def test_a_response_whole_and_streamed(base: FakeBase, model: LiteLLMEndpoint) -> None:
    body = json.loads((await ask(model, "/responses", RESPONSE))[1])
    assert (body["object"], body["model"], body["output"][0]["content"][0]["text"]) == ("response", "voice", ANSWER)
    assert body["error"] is None, "what OpenAI sends as null is null"
    raw = (await ask(model, "/responses", {**RESPONSE, "stream": True}))[1]
    check_response(raw)


async def test_a_model_behind_another_wire_format(base: FakeBase, claude: LiteLLMEndpoint) -> None:
    body = json.loads((await ask(claude, "/chat/completions", CHAT))[1])
    assert body["choices"][0]["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
    assert body["usage"]["total_tokens"] == 33
    assert base.seen[0].header("x-api-key") == "sk-provider" and json.loads(base.seen[0].body)["max_tokens"] > 0
    for path, asked in SURFACES[:2]:
        found = parsed((await ask(claude, path, {**asked, "stream": True}))[1])
        assert text_of(found) == ANSWER and found[-1]["choices"][0]["finish_reason"] == "stop"
    check_response((await ask(claude, "/responses", {**RESPONSE, "stream": True}))[1])


def check_response(raw: bytes) -> None:
    """A streamed response that is consistent from its first event to its last."""
    frames = raw.removesuffix(b"\n\n").split(b"\n\n")
    found = [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames]
    assert [frame.partition(b"\n")[0].decode() for frame in frames] == [f"event: {each['type']}" for each in found]
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    assert (found[0]["type"], found[-1]["type"]) == ("response.created", "response.completed")
    assert "".join(each["delta"] for each in found if each["type"] == "response.output_text.delta") == ANSWER
    last = found[-1]["response"]
    assert last["id"] == found[0]["response"]["id"] and last["model"] == "voice" and last["object"] == "response"
    added = next(each["item"] for each in found if each["type"] == "response.output_item.added")
    assert last["output"][0]["id"] == added["id"] and last["output"][0]["content"][0]["text"] == ANSWER


@pytest.mark.parametrize(("path", "body"), SURFACES, ids=IDS)
@pytest.mark.parametrize("name", ["openai/sample", "anthropic/claude-3-haiku-20240307"])
async def test_leaving_a_stream_closes_the_connection_to_the_provider(
    base: FakeBase, name: str, path: str, body: dict[str, Any]
) -> None:
    base.hold = asyncio.Event()
    if name.startswith("anthropic"):
        base.answer = messages(hold=base.hold)
    endpoint = await loaded(name, base.url if base.answer is None else base.url.removesuffix("/v1"))
    async with endpoint.request("POST", path, body=json.dumps({**body, "stream": True}).encode()) as answer:
        assert await anext(answer.chunks())
        assert base.running == 1
    await until(lambda: base.running == 0, 2, "the end of the request at the provider")


async def test_leaving_while_the_provider_thinks_ends_the_call(base: FakeBase, model: LiteLLMEndpoint) -> None:
    base.answer = never
    asking = asyncio.create_task(ask(model, "/chat/completions", CHAT))
    await until(lambda: base.running == 1, 5, "the request at the provider")
    asking.cancel()
    await until(lambda: base.gone == 1, 2, "the end of the request at the provider")


@pytest.mark.parametrize(("path", "body"), SURFACES, ids=IDS)
async def test_the_providers_errors_keep_status_words_and_retry_headers(
    base: FakeBase, model: LiteLLMEndpoint, path: str, body: dict[str, Any]
) -> None:
    told = {"message": "Bad n.", "type": "invalid_request_error", "param": "n", "code": "bad_n"}
    for status in (400, 401, 403, 404, 413, 422, 429, 500, 503):
        base.answer = answers({"error": told}, status, {"Retry-After": "7", "X-Other": "no"})
        asked = len(base.seen)
        async with model.request("POST", path, body=json.dumps(body).encode()) as answer:
            assert answer.status == status
            assert dict(answer.headers) == {"retry-after": "7", "content-type": "application/json", "content-length": "88"}
            assert json.loads(await answer.read()) == {"error": told}
        assert len(base.seen) == asked + 1, "nothing is repeated"


@pytest.mark.parametrize(
    ("status", "said"), [(500, b'{"error": {"message": "None", "type": "None"}}'), (503, b""), (502, b"<p>")]
)
async def test_an_error_without_words_is_told_in_ours(base: FakeBase, model: LiteLLMEndpoint, status: int, said: bytes) -> None:
    base.answer = answers(said, status)
    found, raw = await ask(model, "/chat/completions", CHAT)
    assert found == status
    assert set(json.loads(raw)["error"]) == {"message", "type", "param", "code"}
    assert b"None" not in raw and b"litellm" not in raw.lower()


async def test_errors_of_another_wire_format_are_openais(base: FakeBase, claude: LiteLLMEndpoint) -> None:
    base.answer = answers(error("overloaded_error", "Overloaded."), 529)
    status, raw = await ask(claude, "/chat/completions", CHAT)
    expected = {"message": "Overloaded.", "type": "overloaded_error", "param": None, "code": None}
    assert (status, json.loads(raw)) == (529, {"error": expected})


async def test_what_the_provider_does_not_know_is_refused(base: FakeBase, claude: LiteLLMEndpoint) -> None:
    status, raw = await ask(claude, "/chat/completions", {**CHAT, "n": 3})
    told = json.loads(raw)["error"]
    assert (status, told["type"]) == (400, "invalid_request_error")
    assert "'n'" in told["message"] and "drop_params" not in told["message"]
    assert not base.seen


@pytest.mark.parametrize("name", ["api_base", "api_key", "extra_headers", "mock_response", "custom_llm_provider", "timeout", "x"])
async def test_arguments_of_the_sdk_are_no_fields_of_a_request(base: FakeBase, model: LiteLLMEndpoint, name: str) -> None:
    for path, body in SURFACES:
        status, raw = await ask(model, path, {**body, name: "y"})
        told = json.loads(raw)["error"]
        assert (status, told["param"], told["code"]) == (400, name, "unknown_parameter")
    assert not base.seen


PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def seen_with(url: str) -> dict[str, Any]:
    """A chat about an image."""
    parts = [{"type": "text", "text": "http://example.com is what?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {**CHAT, "messages": [{"role": "user", "content": parts}]}


async def test_nothing_is_fetched_for_a_client(base: FakeBase, claude: LiteLLMEndpoint) -> None:
    """The SDK would: from where we run, with what we can reach."""
    status, said = await ask(claude, "/chat/completions", seen_with(f"{base.url}/secret.png"))
    assert (status, json.loads(said)["error"]["param"]) == (400, "messages")
    part = {"type": "input_image", "image_url": f" {base.url.upper()}/x.png"}
    status, said = await ask(claude, "/responses", {**RESPONSE, "input": [{"role": "user", "content": [part]}]})
    assert (status, json.loads(said)["error"]["param"]) == (400, "input")
    assert base.seen == []
    assert (await ask(claude, "/chat/completions", seen_with(PIXEL)))[0] == 200
    assert len(base.seen) == 1


async def test_a_provider_that_fetches_itself_is_told_the_url(base: FakeBase, model: LiteLLMEndpoint) -> None:
    body = seen_with("https://nowhere.invalid/x.png")
    assert (await ask(model, "/chat/completions", {**body, "model": "voice"}))[0] in (200, 404)
    assert b"https://nowhere.invalid/x.png" in base.seen[-1].body
    assert len(base.seen) == 1


async def test_it_answers_for_one_model_and_only_generates(base: FakeBase, model: LiteLLMEndpoint) -> None:
    listed = await model.json("/models", method="GET")
    assert [each["id"] for each in listed["data"]] == ["voice"]
    for name in ("sample", None, "openai/other"):
        status, raw = await ask(model, "/chat/completions", {**CHAT, "model": name})
        assert (status, json.loads(raw)["error"]["code"]) == (404, "model_not_found")
    assert (await ask(model, "/chat/completions", {**CHAT, "model": "openai/sample"}))[0] == 200
    for method, path in (("POST", "/embeddings"), ("GET", "/responses/resp_1"), ("GET", "/chat/completions")):
        async with model.request(method, path, body=b"{}") as answer:
            assert (answer.status, json.loads(await answer.read())["error"]["code"]) == (404, "unknown_url")
    for raw in (b"{", b"[]"):
        async with model.request("POST", "/responses", body=raw) as answer:
            assert (answer.status, json.loads(await answer.read())["error"]["code"]) == (400, "invalid_json")
    assert len(base.seen) == 1


@pytest.mark.parametrize("name", ["openai/sample", "anthropic/claude-3-haiku-20240307"])
async def test_a_provider_that_cannot_be_reached_was_sent_nothing(name: str) -> None:
    endpoint = await loaded(name, f"http://{HOST}:{closed_port()}")
    for path, body in SURFACES:
        with pytest.raises(UpstreamUnavailable, match="cannot be reached") as caught:
            await ask(endpoint, path, body)
        assert caught.value.unsent


async def test_another_base_stands_in_for_it(base: FakeBase) -> None:
    dead = await loaded("openai/sample", f"http://{HOST}:{closed_port()}/v1")
    body = json.dumps({**CHAT, "model": "sample"}).encode()
    async with new_session() as session:
        both = Failover([dead, HttpEndpoint(session, base.url)])
        async with both.request(
            "POST", "/chat/completions", body=lambda to: json.dumps(CHAT).encode() if to is dead else body
        ) as got:
            assert json.loads(await got.read())["choices"][0]["message"]["content"] == ANSWER


async def test_a_connection_that_breaks_may_have_been_sent_something() -> None:
    async with sending(sends(b"")) as url:
        with pytest.raises(UpstreamUnavailable) as caught:
            await ask(await loaded("openai/sample", f"{url}/v1"), "/chat/completions", CHAT)
    assert not caught.value.unsent


@pytest.mark.parametrize("said", [b"[]", b"{}", b"nonsense", b'{"choices": 1}'])
async def test_an_answer_that_is_none(base: FakeBase, model: LiteLLMEndpoint, said: bytes) -> None:
    base.answer = answers(said)
    for path, body in (SURFACES[0], SURFACES[2]):
        with pytest.raises(UpstreamError) as caught:
            await ask(model, path, body)
        assert (caught.value.status, caught.value.code) == (502, "upstream_garbled")
        assert caught.value.message == "the base model broke off or garbled its answer"


@pytest.mark.parametrize(("path", "body"), SURFACES, ids=IDS)
async def test_a_stream_that_breaks_off_has_no_end(
    base: FakeBase, claude: LiteLLMEndpoint, path: str, body: dict[str, Any]
) -> None:
    base.answer = messages(cut=5)
    with pytest.raises(UpstreamError) as caught:
        await ask(claude, path, {**body, "stream": True})
    assert caught.value.code == "upstream_garbled"


async def test_an_error_in_the_middle_of_a_stream(base: FakeBase, model: LiteLLMEndpoint) -> None:
    said = {"error": {"message": "Out of memory.", "type": "server_error", "param": None, "code": "oom"}}
    base.answer = streams(event(chunk(delta(0, content="Hello"))), event(said), DONE)
    with pytest.raises(UpstreamError) as caught:
        await ask(model, "/chat/completions", {**CHAT, "stream": True})
    assert (caught.value.message, caught.value.upstream_type, caught.value.code) == ("Out of memory.", "server_error", "oom")


async def test_deadlines(base: FakeBase) -> None:
    model = await loaded("openai/sample", base.url)
    await ask(model, "/chat/completions", CHAT)  # what the SDK does once is done
    model = await loaded("openai/sample", base.url, timeout_s=0.5)
    base.answer = never
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout, match=r"within 0\.5 s"):
        await ask(model, "/chat/completions", CHAT)
    base.answer = streams(event(chunk(delta(0, content="Hello"))), event(chunk(delta(0, content="you"))), pause_s=20)
    async with model.request("POST", "/chat/completions", body=json.dumps({**CHAT, "stream": True}).encode()) as answer:
        with pytest.raises(UpstreamTimeout, match=r"within 0\.3 s"):
            _ = [chunk async for chunk in answer.chunks(idle_s=0.3)]
    assert time.monotonic() - started < 5
    await until(lambda: base.running == 0, 2, "the end of the requests at the provider")


async def test_a_provider_that_nobody_knows_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"litellm: 'nonsense/x' names no provider that LiteLLM knows; allowed: provider/model"):
        await loaded("nonsense/x", f"http://{HOST}:1")


def test_without_litellm_the_error_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "visa-proxy\[litellm\]"'):
        LiteLLMEndpoint("openai/sample", model="voice")


QUIET = """
import asyncio, json, logging, os, sys
logging.basicConfig(level=logging.INFO)
from visa_proxy.llm.litellm import LiteLLMEndpoint
assert "litellm" not in sys.modules, "imported before it is needed"
async def call(url):
    endpoint = LiteLLMEndpoint("openai/sample", model="voice", api_key="sk-provider", api_base=url)
    await endpoint.load()
    assert "SECRET_OF_A_DOTENV_FILE" not in os.environ
    for stream in (False, True):
        body = {"model": "voice", "messages": [{"role": "user", "content": "private words"}], "stream": stream}
        async with endpoint.request("POST", "/chat/completions", body=json.dumps(body).encode()) as answer:
            raw = await answer.read()
            print(answer.status)
async def main():
    for url in sys.argv[1:]:
        await call(url)
asyncio.run(main())
"""


async def test_nothing_of_a_call_is_printed_or_logged(base: FakeBase, tmp_path: Path) -> None:
    """Neither of one that is answered nor of one that is refused."""
    (tmp_path / ".env").write_text("SECRET_OF_A_DOTENV_FILE=1\n")
    refuses = FakeBase(answer=answers({"error": {"message": "Not: private words."}}, 400))
    env = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    async with serving(refuses.app()) as url:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", QUIET, base.url, f"{url}/v1"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
            timeout=100,
        )
    assert done.stdout.split() == ["200", "200", "400", "400"], done.stderr
    assert not done.stderr
