"""visa-proxy inside a real vLLM server, as middleware and as endpoint plugin, started as docs/hosts/vllm.md says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from tests.fakes.child import Child, running, tail
from tests.fakes.pages import blocks, files
from tests.vllm.asking import CALL_S, ask, client_of, made_after_leaving, read_begun, undated, visa_of
from tests.vllm.parrot import MAX_LENGTH, Saying, write_parrot
from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.policy.keys import hash_key

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

PAGE: Final = Path(__file__).parents[2] / "docs" / "hosts" / "vllm.md"
START_S: Final = 400.0

MODEL: Final = "qwen"
VLLM_KEY: Final = "sk-of-vllm"
TENANT_KEY: Final = "sk-hartwell-mutual-demo"
FULL_KEY: Final = "sk-full"
PLAIN_KEY: Final = "sk-plain"

DRIVE: Final = "Check the tyres before a long drive."
SAFE_DRIVE: Final = "To stay safe and secure, check the tyres before a long drive."
OIL: Final = "Check the tyres, the oil and the lights well ahead of time."
SAFE_OIL: Final = "To stay safe and secure, check the tyres, the oil and the lights well ahead of time."
TORCH: Final = "Pack some water, a torch and one warm blanket for the night."
SAFE_TORCH: Final = "To stay safe and secure, pack some water, a torch and one warm blanket for the night."
WALK: Final = "A short walk each morning takes half an hour."
GIBBERISH: Final = "Bronze lamps quarrel under seventeen violet umbrellas!"
COUNT: Final = "I count three, four, five, six, eight, nine and more. "
LONG: Final = MAX_LENGTH - 100
"""Tokens of an answer that would not end by itself."""
SAYINGS: Final = (
    # As rewriter: the prompt holds the answer, and what came before it.
    Saying(TORCH, SAFE_TORCH),
    Saying(OIL, SAFE_OIL),
    Saying(DRIVE, SAFE_DRIVE),
    Saying(WALK, GIBBERISH),
    # As base.
    Saying("walk", WALK),
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
shield: {{timeout_s: 120, streaming: full}}
"""
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONUNBUFFERED": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_parrot(folder, SAYINGS)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and two tenants more."""
    folder = tmp_path_factory.mktemp("inside")
    (folder / "policies").mkdir()
    for name, text in files(PAGE).items():
        (folder / name).write_text(text)
    for tenant, key, default in (("full", FULL_KEY, "secure"), ("plain", PLAIN_KEY, "off")):
        text = POLICY.format(tenant=tenant, hash=hash_key(key), default=f'"{default}"')
        (folder / "policies" / f"{tenant}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module", params=["--middleware", "VLLM_PLUGINS"])
def vllm(request: pytest.FixtureRequest, model: Path, folder: Path) -> Iterator[Child]:
    """vLLM with the proxy inside, started in each of the page's two ways."""
    command = next(block.text for block in blocks(PAGE) if block.language == "bash" and request.param in block.text)
    with _serve(command, model, folder) as child:
        _until_ready(child)
        yield child


@pytest.fixture(scope="module")
def alone(model: Path, folder: Path) -> Iterator[Child]:
    """The same vLLM without the proxy."""
    with _serve(
        f"export VLLM_API_KEY={VLLM_KEY}\nvllm serve Qwen/Qwen3-8B --served-model-name {MODEL}\n", model, folder
    ) as child:
        yield child


def _serve(command: str, model: Path, folder: Path) -> Any:
    """`command` as a reader would paste it, but for the model, the port and what makes a tiny model start sooner."""
    port = free_port()
    server = f"exec {shlex.quote(sys.executable)} -m vllm.entrypoints.openai.api_server --model {shlex.quote(str(model))}"
    more = f"--host {HOST} --port {port} --enforce-eager --dtype float32 --max-model-len {MAX_LENGTH}"
    assert "vllm serve Qwen/Qwen3-8B" in command
    script = f"cd {shlex.quote(str(folder))}\n{command.rstrip()} {more}".replace("vllm serve Qwen/Qwen3-8B", server)
    log = folder / f"log-{port}"
    return running(
        ["bash", "-ec", script], url=f"http://{HOST}:{port}", ready="/health", log=log, env=ENVIRONMENT, timeout_s=START_S
    )


def _until_ready(child: Child) -> None:
    """vLLM serves before the proxy has its models."""
    deadline = time.monotonic() + CALL_S
    while _get(child, "/visa/readyz")[0] != 200:
        assert time.monotonic() < deadline, tail(child.log)
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def log(vllm: Child) -> Iterator[None]:
    """pytest shows what a test printed when it fails."""
    yield
    print(f"vLLM's log\n{tail(vllm.log)}")  # noqa: T201


@pytest.fixture
def window(vllm: Child) -> Iterator[openai.OpenAI]:
    with client_of(vllm, TENANT_KEY) as client:
        yield client


@pytest.fixture
def full(vllm: Child) -> Iterator[openai.OpenAI]:
    with client_of(vllm, FULL_KEY) as client:
        yield client


@pytest.fixture
def plain(vllm: Child) -> Iterator[openai.OpenAI]:
    with client_of(vllm, PLAIN_KEY) as client:
        yield client


@pytest.fixture
def own(vllm: Child) -> Iterator[openai.OpenAI]:
    """With vLLM's own key."""
    with client_of(vllm, VLLM_KEY) as client:
        yield client


def _get(server: Child, path: str, *, key: str | None = None, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, body."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(server.url + path, headers=headers, data=body)
    try:
        with urllib.request.urlopen(request, timeout=CALL_S) as answer:
            return answer.status, _lower(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _lower(error.headers), error.read()


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class TestThePage:
    def test_the_client_of_the_page_hears_the_tenants_values(self, vllm: Child) -> None:
        (script,) = [block.text for block in blocks(PAGE) if block.language == "python"]
        assert _run([sys.executable, "-c", _ported(script, vllm)]) == f"adapted {SAFE_DRIVE}\n"

    def test_the_readiness_of_the_page(self, vllm: Child) -> None:
        (command,) = [block.text for block in blocks(PAGE) if block.text.startswith("curl") and "/visa/" in block.text]
        assert '"status":"ok"' in _run(["bash", "-ec", _ported(command, vllm)])


def _ported(text: str, server: Child) -> str:
    assert "http://127.0.0.1:8000" in text
    return text.replace("http://127.0.0.1:8000", server.url)


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=True).stdout


class TestTenants:
    def test_a_whole_answer(self, full: openai.OpenAI) -> None:
        answer = full.chat.completions.with_raw_response.create(model=MODEL, messages=ask("What before a long drive?"))
        completion = answer.parse()
        assert completion.choices[0].message.content == SAFE_DRIVE
        assert (answer.headers["x-visa-status"], answer.headers["x-visa-tenant"]) == ("adapted", "full")
        assert completion.model == MODEL
        assert completion.usage is not None and completion.usage.completion_tokens > 1

    def test_a_stream_as_a_whole(self, full: openai.OpenAI) -> None:
        stream = full.chat.completions.create(model=MODEL, messages=ask("What before a long drive?"), stream=True)
        headers, chunks = stream.response.headers, list(stream)
        assert headers["x-visa-stream-mode"] == "full"
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == SAFE_DRIVE
        assert visa_of(chunks[-1])["status"] == "adapted"

    def test_a_stream_in_windows(self, window: openai.OpenAI) -> None:
        stream = window.chat.completions.create(model=MODEL, messages=ask("What before a trip?"), stream=True)
        headers, chunks = stream.response.headers, list(stream)
        said = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
        assert headers["x-visa-stream-mode"] == "window"
        assert said == [f"{SAFE_OIL} ", SAFE_TORCH]
        assert visa_of(chunks[-1])["windows"] == {"total": 2, "adapted": 2}

    def test_completions_and_responses(self, window: openai.OpenAI) -> None:
        response = window.responses.create(model=MODEL, input="What before a long drive?")
        assert (response.output_text, visa_of(response)["status"]) == (SAFE_DRIVE, "adapted")
        # This server keeps no responses itself; what the client saw is kept here.
        assert window.responses.retrieve(response.id).output_text == SAFE_DRIVE
        completion = window.completions.create(model=MODEL, prompt="Walk", max_tokens=20)
        assert "status" in visa_of(completion)

    def test_a_rewrite_that_does_not_verify_is_the_bases_own_text(self, full: openai.OpenAI, vllm: Child) -> None:
        answer = full.chat.completions.create(model=MODEL, messages=ask("Why should I walk?"))
        assert answer.choices[0].message.content == WALK
        assert visa_of(answer)["status"].startswith("fallback:unverified-")
        assert "tenant=full profile=secure fallback:unverified-" in vllm.log.read_text()

    def test_many_at_once(self, full: openai.OpenAI) -> None:
        def said(number: int) -> str | None:
            question = ask(f"What before a long drive, number {number}?")
            return full.chat.completions.create(model=MODEL, messages=question).choices[0].message.content

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(said, range(16))) == {SAFE_DRIVE}

    def test_models_are_listed_with_the_profiles(self, plain: openai.OpenAI, own: openai.OpenAI) -> None:
        assert {model.id for model in plain.models.list()} == {MODEL, f"{MODEL}@secure", f"{MODEL}@off"}
        assert {model.id for model in own.models.list()} == {MODEL}


class TestPassThrough:
    def test_json_is_what_vllm_says_to_its_own_key(self, plain: openai.OpenAI, own: openai.OpenAI) -> None:
        answers = [
            client.chat.completions.with_raw_response.create(model=MODEL, messages=ask("Why should I walk?"), seed=3)
            for client in (own, plain)
        ]
        assert WALK.encode() in answers[0].content
        assert undated(answers[1].content) == undated(answers[0].content)
        assert "x-visa-status" not in answers[0].headers
        assert answers[1].headers["x-visa-status"] == "passthrough"

    def test_an_event_stream_is_what_vllm_says_to_its_own_key(self, plain: openai.OpenAI, own: openai.OpenAI) -> None:
        frames = []
        for client in (own, plain):
            with client.chat.completions.with_streaming_response.create(
                model=MODEL, messages=ask("Why should I walk?"), seed=3, stream=True, stream_options={"include_usage": True}
            ) as answer:
                frames.append(undated(answer.read()).split(b"\n\n"))
        # vLLM itself decides by the clock how many tokens go into one frame, so only the frames around the text are compared.
        assert frames[1][0] == frames[0][0]
        assert frames[1][-3:] == frames[0][-3:]
        assert frames[1][-2:] == [b"data: [DONE]", b""]

    def test_leaving_ends_the_request_in_the_engine(self, plain: openai.OpenAI, vllm: Child) -> None:
        def leave() -> None:
            read_begun(plain, COUNT, model=MODEL, messages=ask("Please count"), max_tokens=LONG)

        assert 0 < made_after_leaving(vllm, leave, asked=LONG) < LONG

    def test_leaving_a_request_that_is_held_back_ends_it_too(self, full: openai.OpenAI, vllm: Child) -> None:
        def leave() -> None:
            with pytest.raises(openai.APITimeoutError):
                full.with_options(timeout=0.3).chat.completions.create(model=MODEL, messages=ask("Please count"), max_tokens=LONG)

        assert made_after_leaving(vllm, leave, asked=LONG) < LONG


class TestErrors:
    def test_of_the_proxy(self, full: openai.OpenAI) -> None:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            full.chat.completions.create(model=MODEL, messages=ask("Hello"), extra_headers={"X-Visa-Instruction": "Be kind."})
        assert caught.value.code == "instruction_not_allowed"

    @pytest.mark.parametrize("stream", [False, True])
    def test_of_vllm(self, full: openai.OpenAI, own: openai.OpenAI, stream: bool) -> None:
        errors = []
        for client in (own, full):
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model=MODEL, messages=ask("Hello"), temperature=-1, stream=stream)
            errors.append(caught.value.response.json()["error"])
        assert isinstance(errors[0]["code"], int), "then the next line means something"
        assert errors[1] == {**errors[0], "code": str(errors[0]["code"])}

    def test_administration_is_not_for_tenants(self, vllm: Child) -> None:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            assert _get(vllm, path, key=PLAIN_KEY, body=b"{}")[0] == 404


CHAT: Final = b'{"model":"qwen","messages":[{"role":"user","content":"Why should I walk?"}],"seed":3}'
UNTOUCHED: Final = [
    (path, key, body)
    for path, body in (
        ("/v1/models", None),
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", b"{"),
        ("/v1/visa/detect", b"{}"),
        ("/v1/nothing", None),
    )
    for key in (None, "sk-wrong", VLLM_KEY)
] + [
    ("/health", None, None),
    ("/version", None, None),
    ("/ping", None, None),
    ("/openapi.json", None, None),
    ("/tokenize", PLAIN_KEY, b'{"model":"qwen","prompt":"Hello"}'),
    ("/healthz", None, None),
    ("/visa/nothing", None, None),
    ("/nothing", PLAIN_KEY, None),
]  # fmt: skip


class TestEverythingElseIsVllmsOwn:
    @pytest.mark.parametrize(("path", "key", "body"), UNTOUCHED)
    def test_to_the_byte(self, vllm: Child, alone: Child, path: str, key: str | None, body: bytes | None) -> None:
        with_us, without = (_get(server, path, key=key, body=body) for server in (vllm, alone))
        varying = {"date", "content-length"} if path == "/v1/models" else {"date"}
        assert with_us[0] == without[0]
        assert {**with_us[1], **dict.fromkeys(varying)} == {**without[1], **dict.fromkeys(varying)}
        assert undated(with_us[2]) == undated(without[2])

    def test_401_is_vllms(self, vllm: Child) -> None:
        """What the case above compares is what it should be."""
        assert _get(vllm, "/v1/models", key="sk-wrong")[::2] == (401, b'{"error":"Unauthorized"}')
        assert _get(vllm, "/v1/models")[::2] == (401, b'{"error":"Unauthorized"}')
        assert WALK.encode() in _get(vllm, "/v1/chat/completions", key=VLLM_KEY, body=CHAT)[2]

    def test_metrics_are_apart(self, vllm: Child, alone: Child) -> None:
        assert _names(vllm, "/metrics") == _names(alone, "/metrics")
        assert {name for name in _names(vllm, "/visa/metrics") if name.startswith("visa_")}


def _names(server: Child, path: str) -> set[str]:
    """Of metrics."""
    return set(re.findall(r"^# HELP (\S+)", server.get(path), re.MULTILINE))


def test_sigterm_ends_it_with_a_request_under_way(vllm: Child) -> None:
    """The last test of each server: it does not serve afterwards."""
    with client_of(vllm, PLAIN_KEY) as client:
        stream = client.chat.completions.create(model=MODEL, messages=ask("Please count"), stream=True, max_tokens=LONG)
        next(stream)
        vllm.process.terminate()
        stream.close()  # vLLM waits for a client that stays, whoever answers it
    assert vllm.process.wait(30) == 0
    # A request cut short makes vLLM itself trace its engine's end now and then; in none of it may we stand.
    assert not re.search(r'File "[^"]*/visa_proxy/', vllm.log.read_text())
