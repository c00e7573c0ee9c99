"""Spans as a real collector gets them: which there are, how they hang together, and that no message is in them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiProviderNameValues

from tests.fakes.base import ANSWER, QUESTION, FakeBase, Seen, answers
from tests.fakes.collector import FakeCollector, Span
from tests.fakes.command import ROOT, serving_command
from tests.fakes.http import HOST, closed_port, serving, until
from tests.fakes.policies import plain, policy, write
from tests.fakes.proxy import Starter
from tests.fakes.rewriter import FakeRewriter, asked_text, reply
from tests.fakes.said import LONG_ANSWER
from visa_proxy.errors import ConfigError, MissingExtra
from visa_proxy.policy.config import Endpoint, LiteLLM
from visa_proxy.server.components import Instruments
from visa_proxy.server.tracing.asked import counts
from visa_proxy.server.tracing.settings import wanted
from visa_proxy.server.tracing.spans import _PROVIDERS, _server

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
CHAT = "POST /v1/chat/completions"
STAGES = {"visa.detect", "visa.preserve", "visa.rewrite", "visa.verify"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeCollector]:
    """Where proxies that are started from here on send their spans."""
    fake = FakeCollector()
    async with serving(fake.app()) as fake.url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", fake.url)
        yield fake


async def test_a_request_its_call_to_the_base_and_every_stage(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, collector: FakeCollector
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Visa-Profile": "kind"}
    traceparents: list[str | None] = []

    async def overheard(request: web.Request, raw: bytes) -> web.StreamResponse:
        traceparents.append(request.headers.get("traceparent"))
        return web.json_response(reply(f"{asked_text(json.loads(raw))} Be kind and look after the people you love."))

    rewriter.answer = overheard
    visa = (await proxy.post(ASK, headers)).json["visa"]
    assert visa["status"] == "adapted"
    await until(lambda: bool(collector.named(CHAT)))
    (request,), (asked,) = collector.named(CHAT), collector.named("chat sample")
    assert (request.kind, request.trace, request.parent, request.failed) == ("server", TRACE, PARENT, False)
    assert request.service == "visa-proxy"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "visa.consistency": pytest.approx(visa["consistency"], abs=1e-4),
        "visa.profile": "kind",
        "visa.status": "adapted",
        "visa.tenant": "acme",
        "visa.texts": 1,
    }
    assert (asked.kind, asked.parent, asked.failed) == ("client", request.id, False)
    assert asked.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "sample",
        "gen_ai.response.model": "sample",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 22,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": HOST,
        "server.port": int(base.url.split(":")[2].split("/")[0]),
        "visa.base": "default",
    }
    stages = [span for span in collector.spans if span.name.startswith("visa.")]
    assert Counter(span.name for span in stages) == Counter({"visa.translate", *STAGES})
    assert {span.parent for span in stages} == {request.id} and {span.trace for span in stages} == {TRACE}
    (rewrite,) = collector.named("visa.rewrite")
    assert (rewrite.kind, rewrite.attributes["gen_ai.usage.output_tokens"]) == ("client", 40)
    assert rewrite.attributes["gen_ai.request.model"] == "fake"
    (given,) = traceparents
    assert given == f"00-{TRACE}-{rewrite.id}-01", "what the rewriter's server traces hangs below our span of it"
    assert context_of(base.seen[-1]) == (TRACE, asked.id, True)
    assert_no_words(collector.spans)


async def test_windows_of_a_stream(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, collector: FakeCollector
) -> None:
    base.texts = [LONG_ANSWER]
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield="{streaming: window, retries: 0}"))
    reply = await proxy.post({**ASK, "stream": True, "stream_options": {"include_usage": True}})
    assert reply.status == 200
    await until(lambda: bool(collector.named(CHAT)))
    (request,), (asked,) = collector.named(CHAT), collector.named("chat sample")
    assert request.attributes["visa.status"] == "adapted" and request.attributes["visa.stream_mode"] == "window"
    assert asked.attributes["gen_ai.usage.output_tokens"] == 22
    rewrites = collector.named("visa.rewrite")
    assert len(rewrites) == len(rewriter.asked) > 1
    assert {span.parent for span in rewrites} == {request.id}
    assert_no_words(collector.spans)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_passed_through(start: Starter, base: FakeBase, collector: FakeCollector, stream: bool) -> None:
    proxy = await start(base.url, text=plain())
    await proxy.post({**ASK, "stream": stream, "stream_options": {"include_usage": True}})
    await proxy.post({"model": "m", "input": "x"}, path="/v1/embeddings")
    await proxy.post({"x": 1}, path="/v1/files/file-123")
    await until(lambda: len([span for span in collector.spans if span.kind == "server"]) == 3)
    (request,), (asked,) = collector.named(CHAT), collector.named("chat sample")
    assert (asked.parent, asked.attributes["gen_ai.usage.input_tokens"]) == (request.id, 11)
    assert request.attributes["visa.status"] == "passthrough" and not request.parent
    assert context_of(base.seen[0]) == (request.trace, asked.id, True)
    assert len(collector.named("embeddings")) == 1
    assert sorted(span.kind for span in collector.named("POST")) == ["client", "server", "server"]
    assert_no_words(collector.spans)


async def test_what_fails(start: Starter, base: FakeBase, collector: FakeCollector) -> None:
    proxy = await start(f"http://{HOST}:{closed_port()}/v1", text=plain())
    assert (await proxy.post(ASK)).status == 503
    assert (await proxy.post(ASK, {"Authorization": "Bearer sk-wrong"})).status == 401
    await until(lambda: len(collector.named(CHAT)) == 2)
    down, refused = collector.named(CHAT)
    assert (down.failed, down.attributes["error.type"], down.attributes["http.response.status_code"]) == (True, "503", 503)
    assert (refused.failed, refused.attributes["http.response.status_code"]) == (False, 401)
    (asked,) = collector.named("chat sample")
    assert (asked.failed, asked.attributes["error.type"], asked.parent) == (True, "upstream_unavailable", down.id)
    base.answer = answers(b"{}", 429)
    proxy = await start(base.url, text=plain())
    assert (await proxy.post(ASK)).status == 429
    await until(lambda: len(collector.named("chat sample")) == 2)
    assert collector.named("chat sample")[1].attributes["error.type"] == "429"
    assert not collector.named(CHAT)[-1].failed, "what a client may not do is no failure of the server"


@pytest.mark.parametrize("model", [None, "spare"])
async def test_after_a_failover_the_base_that_answered_is_named(
    start: Starter, base: FakeBase, second: FakeBase, collector: FakeCollector, model: str | None
) -> None:
    down = f"http://{HOST}:{closed_port()}/v1"
    bases = {"default": Endpoint(down, timeout_s=20), "second": Endpoint(second.url, model, timeout_s=20)}
    proxy = await start(down, text=plain() + "failover: second\n", bases=bases)
    assert (await proxy.post(ASK)).status == 200
    await until(lambda: bool(collector.named(CHAT)))
    (asked,) = collector.named(f"chat {model or 'sample'}")
    assert asked.attributes["visa.base"] == "second" and not asked.failed
    assert asked.attributes["server.port"] == int(second.url.split(":")[2].split("/")[0])
    assert asked.attributes["gen_ai.request.model"] == (model or "sample")


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("bedrock/anthropic.claude-3", "aws.bedrock"),
        ("azure/gpt", "azure.ai.openai"),
        ("vertex_ai/gemini-2", "gcp.vertex_ai"),
        ("gemini/gemini-2", "gcp.gemini"),
        ("mistral/large", "mistral_ai"),
        ("anthropic/claude", "anthropic"),
        ("gpt-4o", "openai"),
    ],
)
def test_providers_are_called_what_opentelemetry_calls_them(name: str, provider: str) -> None:
    assert _server(LiteLLM(name, "m")) == {"gen_ai.provider.name": provider}
    known = {each.value for each in GenAiProviderNameValues}
    assert provider in known and set(_PROVIDERS.values()) <= known


async def test_an_unknown_method_is_told_as_it_came(start: Starter, base: FakeBase, collector: FakeCollector) -> None:
    proxy = await start(base.url, text=plain())
    async with proxy.http.request("PROPFIND", f"{proxy.url}/v1/files") as got:
        assert got.status == 200
    await until(lambda: bool(collector.named("HTTP")))
    (request,) = collector.named("HTTP")
    assert request.attributes["http.request.method"] == "_OTHER"
    assert request.attributes["http.request.method_original"] == "PROPFIND"


async def test_what_is_not_sampled_leaves_nothing_but_says_so_to_the_base(
    start: Starter, base: FakeBase, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    proxy = await start(base.url, text=plain())
    await proxy.post(ASK)
    assert context_of(base.seen[-1])[2] is False
    await proxy.post(ASK, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    await until(lambda: bool(collector.named(CHAT)))
    assert {span.trace for span in collector.spans} == {TRACE}


async def test_a_collector_that_hangs_costs_no_request_and_no_long_end(
    start: Starter, base: FakeBase, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visa_proxy.server.tracing.spans.FLUSH_S", 0.5)
    collector.hangs = True
    proxy = await start(base.url, text=plain())
    await proxy.post(ASK)
    await until(lambda: collector.asked > 0)
    begun = time.monotonic()
    for _ in range(50):
        assert (await proxy.post(ASK)).status == 200
    assert time.monotonic() - begun < 5
    begun = time.monotonic()
    proxy.server.should_exit = True
    await proxy.serving
    assert time.monotonic() - begun < 3


async def test_without_the_variables_nothing_is_changed(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    given = f"00-{TRACE}-{PARENT}-01"
    await proxy.post(ASK, {"traceparent": given, "tracestate": "a=b"})
    assert (base.seen[-1].header("traceparent"), base.seen[-1].header("tracestate")) == (given, "a=b")
    assert proxy.gateway.tracing is None


def test_opentelemetry_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, visa_proxy.server.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


async def test_every_worker_sends_its_spans_also_those_of_its_last_second(tmp_path: Path, base: FakeBase) -> None:
    fake = FakeCollector()
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", plain())
    config = f'server: {{workers: 2}}\nbases: {{default: {{url: "{base.url}"}}}}\n'
    async with serving(fake.app()) as url:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces", "OTEL_SERVICE_NAME": "front"}
        async with serving_command(tmp_path, config, env={**env, "OTEL_BSP_SCHEDULE_DELAY": "60000"}) as command:
            await command.ready(2)
            for pid in command.workers():
                with command.only(pid):
                    assert (await command.post(ASK)).status == 200
            command.process.terminate()
            assert await command.process.wait() == 0
    assert len(fake.named(CHAT)) == 2 and len({span.trace for span in fake.spans}) == 2
    assert {span.service for span in fake.spans} == {"front"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], expected: bool) -> None:
    assert wanted(variables) is expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: found 'zipkin'; allowed: otlp, none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: found 'grpc'; allowed: http/protobuf",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_at_the_start(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wanted(variables)


def test_the_pip_line_is_named_when_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    # As where only the API is installed, which other packages bring along.
    def find(module: str) -> object:
        return None if module == "opentelemetry.sdk" else True

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingExtra, match=r'pip install "visa-proxy\[otel\]"'):
        wanted({"OTEL_TRACES_EXPORTER": "otlp"})


def test_usage_is_read_in_both_spellings() -> None:
    expected = {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2}
    assert counts({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}) == expected
    assert counts({"input_tokens": 1, "output_tokens": 2}) == expected
    assert counts({"input_tokens": "1", "output_tokens": None}) == {}


def context_of(seen: Seen) -> tuple[str, str, bool]:
    """Trace, parent and whether it is sampled, as the base was told."""
    (given,) = [value for name, value in seen.headers if name == "traceparent"]
    version, trace, parent, flags = given.split("-")
    assert version == "00"
    return trace, parent, bool(int(flags, 16) & 1)


def assert_no_words(spans: list[Span]) -> None:
    """Nothing of what was said is in any span."""
    said = " ".join(span.text for span in spans).lower()
    words = {word.strip(".,?!:;").lower() for text in (QUESTION, ANSWER, LONG_ANSWER) for word in text.split()}
    assert not [word for word in words if len(word) > 5 and word in said]
    assert "sk-test" not in said
