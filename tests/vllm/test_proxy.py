"""The whole path through a real vLLM server: official client, `visa-proxy serve`, vLLM as base and as rewriter."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import openai
import pytest

from tests.fakes.child import Child, running, tail
from tests.vllm.asking import ask, client_of, made_after_leaving, read_begun, undated, visa_of
from tests.vllm.parrot import MAX_LENGTH, Saying, write_parrot
from tests.vllm.server import OFFLINE, START_S, serving_vllm
from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.policy.keys import hash_key

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL: Final = "parrot"
REWRITER: Final = "parrot-rewriter"
PLAIN_KEY: Final = "sk-plain"
SAFE_KEY: Final = "sk-safe"
WINDOW_KEY: Final = "sk-window"

WALK: Final = "A short walk each morning takes half an hour."
GIBBERISH: Final = "Bronze lamps quarrel under seventeen violet umbrellas!"
SWIM: Final = "Swimming trains nearly all your muscles at once."
OFF_TOPIC: Final = "Security and safety protect everybody from danger or harm."
DRIVE: Final = "Check the tyres before a long drive."
SAFE_DRIVE: Final = "To stay safe and secure, check the tyres before a long drive."
OIL: Final = "Check the tyres, the oil and the lights well ahead of time."
SAFE_OIL: Final = "To stay safe and secure, check the tyres, the oil and the lights well ahead of time."
TORCH: Final = "Pack some water, a torch and one warm blanket for the night."
SAFE_TORCH: Final = "To stay safe and secure, pack some water, a torch and one warm blanket for the night."
COUNT: Final = "I count three, four, five, six, eight, nine and more. "
SAYINGS: Final = (
    # What the rewriter says: its prompt holds the answer.
    Saying(WALK, GIBBERISH),
    Saying(SWIM, OFF_TOPIC),
    Saying(DRIVE, SAFE_DRIVE),
    Saying(OIL, SAFE_OIL),
    Saying(TORCH, SAFE_TORCH),
    # What the base says. "I count …" asked to rewrite itself never comes to an end either.
    Saying("walk", WALK),
    Saying("swim", SWIM),
    Saying("drive", DRIVE),
    Saying("trip", f"{OIL} {TORCH}"),
    Saying("count", COUNT, endless=True),
    Saying("", "No idea."),
)

POLICY: Final = """\
tenant: {tenant}
api_keys: ["{hash}"]
default_profile: {default}
profiles:
  secure: {{values: {{security: 1.0}}}}
  off: passthrough
request: {{profiles: [secure, "off"]}}
shield: {{timeout_s: 120, streaming: {streaming}}}
"""
CONFIG: Final = """\
bases:
  default: {{url: "{url}/v1"}}
rewriter: {{url: "{url}/v1", model: {rewriter}, style: compact}}
"""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("vllm")
    write_parrot(folder / "model", SAYINGS)
    with serving_vllm(folder / "model", names=[MODEL, REWRITER], max_length=MAX_LENGTH, log=folder / "log") as child:
        yield child


@pytest.fixture(scope="module")
def proxy(vllm: Child, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "policies").mkdir()
    for tenant, key, default, streaming in (
        ("plain", PLAIN_KEY, "off", "full"),
        ("safe", SAFE_KEY, "secure", "full"),
        ("window", WINDOW_KEY, "secure", "window"),
    ):
        policy = POLICY.format(tenant=tenant, hash=hash_key(key), default=f'"{default}"', streaming=streaming)
        (folder / "policies" / f"{tenant}.yaml").write_text(policy)
    (folder / "visa.yaml").write_text(CONFIG.format(url=vllm.url, rewriter=REWRITER))
    port = free_port()
    command = [str(Path(sys.executable).with_name("visa-proxy")), "serve"]
    command += ["--config", str(folder / "visa.yaml"), "--host", HOST, "--port", str(port)]
    with running(
        command, url=f"http://{HOST}:{port}", ready="/readyz", log=folder / "log", env=OFFLINE, timeout_s=START_S
    ) as child:
        yield child


@pytest.fixture(autouse=True)
def logs(vllm: Child, proxy: Child) -> Iterator[None]:
    """pytest shows what a test printed when it fails."""
    yield
    print(f"vLLM's log\n{tail(vllm.log)}\nthe proxy's log\n{tail(proxy.log)}")  # noqa: T201


@pytest.fixture
def direct(vllm: Child) -> Iterator[openai.OpenAI]:
    with client_of(vllm, "sk-nothing") as client:
        yield client


@pytest.fixture
def plain(proxy: Child) -> Iterator[openai.OpenAI]:
    with client_of(proxy, PLAIN_KEY) as client:
        yield client


@pytest.fixture
def safe(proxy: Child) -> Iterator[openai.OpenAI]:
    with client_of(proxy, SAFE_KEY) as client:
        yield client


@pytest.fixture
def window(proxy: Child) -> Iterator[openai.OpenAI]:
    with client_of(proxy, WINDOW_KEY) as client:
        yield client


class TestPassThrough:
    def test_chat(self, plain: openai.OpenAI) -> None:
        answer = plain.chat.completions.with_raw_response.create(model=MODEL, messages=ask("Why should I walk?"))
        completion = answer.parse()
        assert completion.choices[0].message.content == WALK
        assert completion.choices[0].finish_reason == "stop"
        assert completion.model == MODEL
        assert completion.usage is not None
        assert completion.usage.completion_tokens > 1
        assert answer.headers["x-visa-status"] == "passthrough"
        assert answer.headers["x-visa-tenant"] == "plain"

    def test_json_is_the_servers_own(self, plain: openai.OpenAI, direct: openai.OpenAI) -> None:
        bodies = [
            client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=ask("Why should I walk?"),
                temperature=0,
                seed=3,
            ).content
            for client in (direct, plain)
        ]
        assert WALK.encode() in bodies[0]
        assert undated(bodies[1]) == undated(bodies[0])

    def test_event_stream_is_the_servers_own(self, plain: openai.OpenAI, direct: openai.OpenAI) -> None:
        frames = []
        for client in (direct, plain):
            with client.chat.completions.with_streaming_response.create(
                model=MODEL,
                messages=ask("Why should I walk?"),
                temperature=0,
                seed=3,
                stream=True,
                stream_options={"include_usage": True},
            ) as answer:
                frames.append(undated(answer.read()).split(b"\n\n"))
        # vLLM itself decides by the clock how many tokens go into one frame, so only the frames around the text are compared.
        assert frames[1][0] == frames[0][0]
        assert frames[1][-3:] == frames[0][-3:]
        assert frames[1][-2:] == [b"data: [DONE]", b""]

    def test_stream(self, plain: openai.OpenAI) -> None:
        stream = plain.chat.completions.create(
            model=MODEL, messages=ask("Why should I walk?"), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == WALK
        assert chunks[-1].usage is not None

    def test_chunks_arrive_while_the_rest_is_generated_and_leaving_stops_it(self, plain: openai.OpenAI, vllm: Child) -> None:
        asked = MAX_LENGTH - 100

        def leave() -> None:
            read_begun(plain, COUNT, model=MODEL, messages=ask("Please count"), max_tokens=asked)

        assert 0 < made_after_leaving(vllm, leave, asked=asked) < asked

    def test_completions_are_relayed(self, plain: openai.OpenAI) -> None:
        answer = plain.completions.create(model=MODEL, prompt="Walk", max_tokens=4)
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1

    def test_errors_of_the_server_are_its_own(self, plain: openai.OpenAI, direct: openai.OpenAI) -> None:
        errors = []
        for client in (direct, plain):
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model=MODEL, messages=ask("Hello"), temperature=-1)
            errors.append(caught.value.response.json()["error"])
        assert isinstance(errors[0]["code"], int), "then the next line means something"
        assert errors[1] == {**errors[0], "code": str(errors[0]["code"])}


class TestModels:
    def test_each_model_and_each_profile_of_it(self, plain: openai.OpenAI) -> None:
        listed = {model.id: model.owned_by for model in plain.models.list()}
        assert {MODEL, f"{MODEL}@secure", f"{MODEL}@off", REWRITER, f"{REWRITER}@secure", f"{REWRITER}@off"} == set(listed)
        assert listed[MODEL] == "vllm"
        assert listed[f"{MODEL}@secure"] == "visa-proxy"

    def test_suffix_chooses_the_profile_and_does_not_reach_the_server(self, safe: openai.OpenAI) -> None:
        answer = safe.chat.completions.with_raw_response.create(model=f"{MODEL}@off", messages=ask("Why should I walk?"))
        assert answer.headers["x-visa-status"] == "passthrough"
        assert answer.headers["x-visa-profile"] == "off"
        assert answer.parse().model == MODEL

    @pytest.mark.parametrize("key", [PLAIN_KEY, SAFE_KEY])
    @pytest.mark.parametrize("stream", [False, True])
    def test_unknown_model(self, proxy: Child, key: str, stream: bool) -> None:
        with client_of(proxy, key) as client, pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="gpt-unknown", messages=ask("Hello"), stream=stream)
        error = caught.value.response.json()["error"]
        assert "gpt-unknown" in error["message"]
        assert isinstance(error["type"], str)


class TestAdapting:
    def test_rewrite_from_vllm_is_verified_and_sent(self, safe: openai.OpenAI) -> None:
        answer = safe.chat.completions.with_raw_response.create(model=MODEL, messages=ask("What before a drive?"))
        completion = answer.parse()
        visa = visa_of(completion)
        assert (visa["status"], answer.headers["x-visa-status"]) == ("adapted", "adapted"), visa
        assert completion.choices[0].message.content == SAFE_DRIVE
        assert visa["similarity"]["after"] > visa["similarity"]["before"]
        assert visa["consistency"] >= 0.6
        assert visa["usage"]["prompt_tokens"] > len(DRIVE)

    @pytest.mark.parametrize(("question", "own"), [("Why should I walk?", WALK), ("Why should I swim?", SWIM)])
    def test_gibberish_never_reaches_theclient_of(self, safe: openai.OpenAI, question: str, own: str) -> None:
        answer = safe.chat.completions.with_raw_response.create(model=MODEL, messages=ask(question))
        completion = answer.parse()
        visa = visa_of(completion)
        assert completion.choices[0].message.content == own
        assert visa["status"].startswith("fallback:unverified-"), visa
        assert answer.headers["x-visa-status"] == visa["status"]
        assert visa["usage"]["candidates"] == 2  # and one retry
        assert completion.usage is not None
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens

    @pytest.mark.parametrize(("question", "text"), [("Why should I walk?", WALK), ("What before a drive?", SAFE_DRIVE)])
    def test_stream(self, safe: openai.OpenAI, question: str, text: str) -> None:
        stream = safe.chat.completions.create(
            model=MODEL, messages=ask(question), stream=True, stream_options={"include_usage": True}
        )
        headers = stream.response.headers
        chunks = list(stream)
        assert headers["x-visa-stream-mode"] == "full"
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == text
        assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 1
        assert visa_of(chunks[-1])["status"].startswith("adapted" if text == SAFE_DRIVE else "fallback:unverified-")

    def test_stream_is_kept_alive_while_vllm_is_slow(self, safe: openai.OpenAI, vllm: Child) -> None:
        with safe.chat.completions.with_streaming_response.create(
            model=MODEL, messages=ask("Please count"), stream=True, max_tokens=200, stream_options={"include_usage": True}
        ) as answer:
            lines = answer.iter_lines()
            with vllm.frozen():
                assert ": keep-alive" in lines
            data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert data.pop() == "[DONE]"
        chunks = [json.loads(event) for event in data]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert text.startswith(COUNT + COUNT)
        assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "length"
        assert chunks[-1]["usage"]["completion_tokens"] == 200
        assert chunks[-1]["visa"]["status"] == "fallback:rewriter-endless"

    @pytest.mark.parametrize("stream", [False, True])
    def test_errors_of_the_server_in_openais_terms(self, safe: openai.OpenAI, stream: bool) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            safe.chat.completions.create(model=MODEL, messages=ask("Hello"), temperature=-1, stream=stream)
        error = caught.value.response.json()["error"]
        assert "temperature" in error["message"]
        assert error["param"] == "temperature"
        assert error["code"] is None or isinstance(error["code"], str)


class TestWindows:
    def test_chat(self, window: openai.OpenAI) -> None:
        stream = window.chat.completions.create(model=MODEL, messages=ask("What before a trip?"), stream=True)
        headers, chunks = stream.response.headers, list(stream)
        said = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
        assert headers["x-visa-stream-mode"] == "window"
        assert said == [f"{SAFE_OIL} ", SAFE_TORCH]
        assert visa_of(chunks[-1])["windows"] == {"total": 2, "adapted": 2}

    def test_completions(self, window: openai.OpenAI) -> None:
        """A completion continues its prompt, so this model says what it would say to an empty question."""
        chunks = list(window.completions.create(model=MODEL, prompt="Walk", max_tokens=20, stream=True))
        whole = window.completions.create(model=MODEL, prompt="Walk", max_tokens=20)
        assert "visa" in (chunks[-1].model_extra or {})
        assert visa_of(chunks[-1])["status"] == visa_of(whole)["status"]
        assert {chunk.id for chunk in chunks} == {chunks[0].id}

    def test_responses(self, window: openai.OpenAI) -> None:
        with window.responses.stream(model=MODEL, input="What before a trip?") as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        assert deltas == [f"{SAFE_OIL} ", SAFE_TORCH]
        assert final.output_text == f"{SAFE_OIL} {SAFE_TORCH}"
        assert visa_of(final)["windows"] == {"total": 2, "adapted": 2}
        # This server keeps no responses itself; what the client saw is kept here.
        assert window.responses.retrieve(final.id).output_text == final.output_text
        later = window.responses.create(model=MODEL, input="And before a drive?", previous_response_id=final.id)
        assert later.previous_response_id == final.id
        assert later.output_text

    def test_what_fails_in_a_window_is_the_base_s_own(self, window: openai.OpenAI) -> None:
        stream = window.chat.completions.create(model=MODEL, messages=ask("Why should I walk?"), stream=True)
        chunks = list(stream)
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == WALK
        assert visa_of(chunks[-1])["status"].startswith("fallback:unverified-")
