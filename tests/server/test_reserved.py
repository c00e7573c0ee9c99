"""A tenant's adapter is no other's base model, where one server has the base and the rewriter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.base import QUESTION, FakeBase, answers
from tests.fakes.http import until
from tests.fakes.policies import KEY, plain, write
from tests.fakes.proxy import Running, Starter
from visa_proxy.policy.config import Base, Endpoint, Inner, Launch, LiteLLM, RewriterConfig, ServerConfig
from visa_proxy.policy.keys import hash_key
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.engine import Engine
from visa_proxy.server.reserved import Reserved
from visa_proxy.server.workers.engine import EngineKeeper

MESSAGES: Any = [{"role": "user", "content": QUESTION}]
ASKING: list[tuple[str, Any]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions/", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/responses/compact", {"input": "x"}),
    ("/v1/responses/input_tokens", {"input": "x"}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    ("/v1/embeddings", {"input": "x"}),
    ("/v1/some/future/surface", {}),
]
URL = "http://rewriter.test:8001/v1"
NAMED = plain() + "rewriter: {model: acme-bold}\n"


@pytest.fixture
async def proxy(start: Starter, base: FakeBase) -> Running:
    """Whose base is the rewriter's server; two tenants name adapters."""
    proxy = await start(base.url, base.url, text=NAMED)
    other = plain().replace("plain", "other").replace(hash_key(KEY), hash_key("sk-other")) + "rewriter: {model: other-kind}\n"
    write(proxy.policies, other, "other.yaml")
    await until(lambda: len(proxy.proxy.policies.tenants) == 2)
    return proxy


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), ASKING)
async def test_an_adapter_is_no_base_model(proxy: Running, base: FakeBase, path: str, body: Any, stream: bool) -> None:
    for model in ("acme-bold", "other-kind", "other-kind@012345678901", "other-kind@off"):
        reply = await proxy.post({**body, "model": model, "stream": stream}, path=path)
        assert (reply.status, reply.json["error"]["code"], reply.json["error"]["param"]) == (404, "model_not_found", "model")
    assert not base.seen


async def test_a_version_of_an_adapter_is_none_either(proxy: Running, base: FakeBase) -> None:
    for model, code in (("other-kind@0123456789ab", "profile_not_found"), ("other-kind@0123456789ab@off", "model_not_found")):
        reply = await proxy.post({"model": model, "messages": MESSAGES})
        assert (reply.status, reply.json["error"]["code"]) == (404, code)
    reply = await proxy.post({"model": "other-kind@0123456789ab", "input": "x"}, path="/v1/embeddings")
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found") and not base.seen


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "other\\u002dkind", "input": "x"}',
        b'{"model": "sample", "input": "x", "model": "other-kind"}',
        b'{"model": "other-kind", "input": "x", "x": NaN}',
        '{"model": "other-kind", "input": "x"}'.encode("utf-16"),
        '\ufeff{"model": "other-kind", "input": "x"}'.encode(),
    ],
)
async def test_however_it_is_written(proxy: Running, base: FakeBase, body: bytes) -> None:
    reply = await proxy.post(body, path="/v1/embeddings")
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found") and not base.seen


async def test_everything_else_passes(proxy: Running, base: FakeBase) -> None:
    assert (await proxy.post({"model": "sample", "messages": MESSAGES})).status == 200
    assert (await proxy.post({"model": "sample", "input": "x"}, path="/v1/embeddings")).status == 200
    body = b'{ "input":"other-kind", "deep": {"model": "other-kind"} }'
    assert (await proxy.post(body, path="/v1/embeddings")).status == 200
    assert base.seen[-1].body == body
    assert (await proxy.post(b"model=other-kind \xff", path="/v1/files")).status == 200


async def test_models_are_listed_without_adapters(proxy: Running, base: FakeBase) -> None:
    listed = ["sample", "acme-bold", "acme-bold@0123456789ab", "other-kind", "unnamed"]
    base.answer = answers({"object": "list", "data": [{"id": name, "object": "model"} for name in listed]})
    found = [model["id"] for model in (await proxy.get("/v1/models")).json["data"]]
    assert found == ["sample", "unnamed", "sample@off", "unnamed@off"]
    reply = await proxy.get("/v1/models/other-kind")
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
    assert (await proxy.get("/v1/models/sample")).status == 200


async def test_the_names_follow_the_policies(proxy: Running, base: FakeBase) -> None:
    write(proxy.policies, plain() + "rewriter: {model: acme-new}\n")
    await until(lambda: proxy.proxy.policies.tenants["plain"].rewriter_model == "acme-new")
    assert (await proxy.post({"model": "acme-new", "input": "x"}, path="/v1/embeddings")).status == 404
    assert (await proxy.post({"model": "acme-bold", "input": "x"}, path="/v1/embeddings")).status == 200


async def test_a_rewriter_elsewhere_has_names_of_its_own(start: Starter, base: FakeBase, second: FakeBase) -> None:
    proxy = await start(base.url, second.url, text=NAMED)
    await proxy.post({"model": "acme-bold", "messages": MESSAGES})
    assert json.loads(base.seen[0].body)["model"] == "acme-bold"


def hidden(folder: Path, rewriter: RewriterConfig, *, text: str = NAMED, **bases: Base) -> list[str]:
    """Which of the names are hidden from the only tenant."""
    write(folder, text)
    watcher = PolicyWatcher(folder)
    reserved = Reserved(ServerConfig(bases=bases, policies=folder, rewriter=rewriter), watcher)
    return [name for name in ("acme-bold", "house", "qwen") if reserved.hides(watcher.current.tenants["plain"], name)]


@pytest.mark.parametrize(
    ("base", "rewriter", "expected"),
    [
        (Endpoint(URL), Endpoint("http://Rewriter.test:8001/other/v1", "qwen"), ["acme-bold"]),
        (Endpoint(URL), Endpoint("http://rewriter.test:8002/v1", "qwen"), []),
        (Endpoint("http://localhost:8001/v1"), Endpoint("http://127.0.0.1:8001/v1"), ["acme-bold"]),
        (Endpoint("https://a.test/v1"), Endpoint("https://a.test:443/v1"), ["acme-bold"]),
        (Inner(), Inner("qwen"), ["acme-bold"]),
        (Inner(), Endpoint(URL), []),
        (LiteLLM("openai/qwen", "qwen", api_base=URL), Endpoint(URL), []),
        (Endpoint(URL, "acme-bold"), Endpoint(URL, "qwen"), []),
        (Endpoint(URL), Endpoint(URL, "acme-bold"), []),
    ],
)
def test_only_where_one_server_has_both(tmp_path: Path, base: Base, rewriter: Endpoint | Inner, expected: list[str]) -> None:
    assert hidden(tmp_path, RewriterConfig(rewriter), default=base) == expected


def test_a_launched_one_is_known_by_its_port(tmp_path: Path) -> None:
    launch = Launch("vllm", "./qwen", port=8001, served_model_name="qwen")
    rewriter = RewriterConfig(launch=launch, model="house", adapters=tmp_path)
    assert hidden(tmp_path, rewriter, default=Endpoint("http://localhost:8001/v1")) == ["acme-bold", "house"]
    assert hidden(tmp_path, rewriter, default=Endpoint("http://localhost:8002/v1")) == []
    text = plain() + "rewriter: {model: qwen}\n"
    assert hidden(tmp_path, rewriter, text=text, default=Endpoint("http://localhost:8001/v1")) == ["house"]


async def test_workers_hide_the_same_names(tmp_path: Path) -> None:
    launch = Launch("vllm", "./qwen", port=8001, served_model_name="qwen")
    rewriter = RewriterConfig(launch=launch, model="house", adapters=tmp_path)
    bases = {"default": Endpoint("http://localhost:8001/v1")}
    given = ServerConfig(bases=bases, policies=tmp_path, rewriter=rewriter)
    told = EngineKeeper(rewriter, None).for_workers(given).rewriter
    assert not Engine.needed(told)
    assert hidden(tmp_path, told, default=bases["default"]) == ["acme-bold", "house"]


def test_an_adapter_that_is_the_rewriters_default_is_hidden_too(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "house").mkdir(parents=True)
    for adapters in (tmp_path / "adapters", {"house": tmp_path / "adapters" / "house"}):
        rewriter = RewriterConfig(Endpoint(URL, "house"), adapters=adapters)
        assert hidden(tmp_path, rewriter, default=Endpoint(URL)) == ["acme-bold", "house"]


@pytest.mark.parametrize(("model", "expected"), [(None, ["acme-bold"]), ("qwen", [])])
def test_a_second_base_counts_when_it_is_asked_for_what_the_client_named(
    tmp_path: Path, model: str | None, expected: list[str]
) -> None:
    text = NAMED + "failover: second\n"
    write(tmp_path, text)
    bases = {"default": Endpoint("http://other.test/v1"), "second": Endpoint(URL, model)}
    assert hidden(tmp_path, RewriterConfig(Endpoint(URL)), text=text, **bases) == expected
