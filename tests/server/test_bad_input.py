"""Whatever a caller sends: a 4xx in OpenAI's shape that names the field, with a request id, and never a trip to the base."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.http import HOST, serving
from tests.fakes.policies import KEY, policy, write
from tests.fakes.proxy import Reply, Running, config_for, running
from visa_proxy.server.components import Instruments

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": QUESTION}]
ASK: dict[str, Any] = {"model": "sample", "messages": MESSAGES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[tuple[Running, FakeBase]]:
    """One proxy for all: what is refused changes nothing."""
    folder, fake = tmp_path_factory.mktemp("policies"), FakeBase()
    write(folder, policy(limits="{body_mb: 0.05, requests_per_minute: 100000}"))
    frozen = policy(tenant="frozen", key="sk-frozen", request="{profiles: []}", default="aim")
    write(folder, frozen, "frozen.yaml")
    async with serving(fake.app()) as url, running(config_for(f"{url}/v1", None, folder, base_timeout_s=5), instruments) as proxy:
        yield proxy, fake


def check(reply: Reply, status: int, param: str | None, code: str | None) -> str:
    """The error is OpenAI's; returns its message."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert int(reply.headers["content-length"]) == len(reply.body)
    error = reply.json["error"]
    assert set(reply.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert (error["param"], error["code"]) == (param, code)
    return str(error["message"])


BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("empty", b"", "body", "invalid_json"),
    ("broken", b"{'model': 1}", "body", "invalid_json"),
    ("cut", json.dumps(ASK).encode()[:-9], "body", "invalid_json"),
    ("not-utf8", b'{"model": "\xff\xfe"}', "body", "invalid_json"),
    ("0xff", b"\xff" * 50, "body", "invalid_json"),
    ("nul", b"\x00", "body", "invalid_json"),
    ("list", b"[]", "body", "invalid_json"),
    ("string", b'"hello"', "body", "invalid_json"),
    ("null", b"null", "body", "invalid_json"),
    ("nested", b"[" * 2000 + b"]" * 2000, "body", "invalid_json"),
    ("nested-deep", b'{"model":"sample","messages":' + b"[" * 2000 + b"]" * 2000 + b"}", "body", "invalid_json"),
    ("nan", b'{"model": "sample", "messages": [], "temperature": NaN}', "body", "invalid_json"),
    ("two", json.dumps(ASK).encode() * 2, "body", "invalid_json"),
]


@pytest.mark.parametrize(("body", "param", "code"), [pytest.param(*rest, id=name) for name, *rest in BODIES])
@pytest.mark.parametrize("path", [CHAT, "/v1/visa/detect", "/v1/visa/translate", "/v1/visa/rewrite"])
async def test_bodies_that_are_no_json_object(
    bad: tuple[Running, FakeBase], path: str, body: bytes, param: str, code: str
) -> None:
    proxy, base = bad
    check(await proxy.post(body, path=path), 400, param, code)
    assert not base.seen


FIELDS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("no-model", {"model": None}, "model", None),
    ("empty-model", {"model": ""}, "model", None),
    ("only-suffix", {"model": "@bold"}, "model", None),
    ("model-number", {"model": 5}, "model", "invalid_type"),
    ("model-list", {"model": ["sample"]}, "model", "invalid_type"),
    ("no-messages", {"messages": None}, "messages", None),
    ("empty-messages", {"messages": []}, "messages", None),
    ("messages-string", {"messages": "hi"}, "messages", "invalid_type"),
    ("messages-object", {"messages": {"role": "user"}}, "messages", "invalid_type"),
    ("message-string", {"messages": [*MESSAGES, "hi"]}, "messages[1]", None),
    ("message-null", {"messages": [None]}, "messages[0]", None),
    ("message-no-role", {"messages": [{"content": "hi"}]}, "messages[0]", None),
    ("message-role-number", {"messages": [{"role": 1, "content": "hi"}]}, "messages[0]", None),
    ("stream-string", {"stream": "true"}, "stream", "invalid_type"),
    ("stream-number", {"stream": 1}, "stream", "invalid_type"),
    ("n-zero", {"n": 0}, "n", None),
    ("n-negative", {"n": -3}, "n", None),
    ("n-string", {"n": "2"}, "n", "invalid_type"),
    ("n-float", {"n": 1.5}, "n", "invalid_type"),
    ("n-true", {"n": True}, "n", "invalid_type"),
    ("user-number", {"user": 7}, "user", "invalid_type"),
    ("user-object", {"user": {"id": 7}}, "user", "invalid_type"),
]


@pytest.mark.parametrize(("change", "param", "code"), [pytest.param(*rest, id=name) for name, *rest in FIELDS])
async def test_fields_of_a_wrong_type(
    bad: tuple[Running, FakeBase], change: dict[str, Any], param: str, code: str | None
) -> None:
    proxy, base = bad
    message = check(await proxy.post({**ASK, **change}), 400, param, code)
    assert param.partition("[")[0] in message
    assert not base.seen


VISA: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("detect-unknown", "detect", {"answer": "x", "anwser": "y"}, "anwser", "unknown key 'anwser'; allowed: "),
    ("detect-missing", "detect", {"query": "x"}, "answer", "you must provide 'answer'"),
    ("detect-number", "detect", {"answer": 5}, "answer", "string"),
    ("detect-null", "detect", {"answer": None}, "answer", "string"),
    ("translate-unknown", "translate", {"instruction": "Be kind.", "x": 1}, "x", "unknown key"),
    ("translate-missing", "translate", {}, "instruction", "you must provide"),
    ("translate-blank", "translate", {"instruction": "  "}, "instruction", "instruction"),
    ("translate-long", "translate", {"instruction": "x" * 2001}, "instruction", "2000"),
    ("rewrite-unknown", "rewrite", {"answer": "x", "vlaues": {}}, "vlaues", "unknown key"),
    ("rewrite-value", "rewrite", {"answer": "x", "values": {"fun": 1}}, "values.fun", "unknown value 'fun'; allowed: "),
    ("rewrite-level", "rewrite", {"answer": "x", "values": {"power": 3}}, "values.power", "less than or equal"),
    ("rewrite-level-string", "rewrite", {"answer": "x", "values": {"power": "a"}}, "values.power", "number"),
    ("rewrite-values-list", "rewrite", {"answer": "x", "values": [1]}, "values", "dictionary"),
    ("rewrite-mode", "rewrite", {"answer": "x", "mode": "shift"}, "mode", "'offset' or 'target'"),
    ("rewrite-mode-alone", "rewrite", {"answer": "x", "mode": "target", "instruction": "Be kind."}, "mode", "needs values"),
    ("rewrite-both", "rewrite", {"answer": "x", "profile": "bold", "values": {"power": 1}}, "profile", "either"),
    ("rewrite-off", "rewrite", {"answer": "x", "profile": "off"}, "profile", "passes answers through"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "says"), [pytest.param(*rest, id=name) for name, *rest in VISA])
async def test_the_components_bodies(
    bad: tuple[Running, FakeBase], path: str, body: dict[str, Any], param: str, says: str
) -> None:
    reply = await bad[0].post(body, path=f"/v1/visa/{path}")
    assert says in check(reply, 400, param, None)


HEADERS: list[tuple[str, dict[str, str], dict[str, Any], int, str, str]] = [
    ("unknown-header", {"X-Visa-Profile": "blod"}, {}, 404, "X-Visa-Profile", "profile_not_found"),
    ("unknown-suffix", {}, {"model": "sample@blod"}, 404, "model", "profile_not_found"),
    ("forbidden-header", {"X-Visa-Profile": "secret"}, {}, 403, "X-Visa-Profile", "profile_not_allowed"),
    ("forbidden-suffix", {}, {"model": "sample@secret"}, 403, "model", "profile_not_allowed"),
    ("unknown-long", {"X-Visa-Profile": "x" * 200}, {}, 404, "X-Visa-Profile", "profile_not_found"),
    ("too-long", {"X-Visa-Profile": "x" * 300}, {}, 400, "X-Visa-Profile", "invalid_header"),
    ("too-long-instruction", {"X-Visa-Instruction": "x" * 2001}, {}, 400, "X-Visa-Instruction", "invalid_header"),
    ("passthrough", {"X-Visa-Profile": "off", "X-Visa-Instruction": "Be kind."}, {}, 400, "X-Visa-Instruction",
     "instruction_not_applicable"),
    ("target", {"X-Visa-Profile": "aim", "X-Visa-Instruction": "Be kind."}, {}, 400, "X-Visa-Instruction",
     "instruction_not_applicable"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "change", "status", "param", "code"), [pytest.param(*rest, id=name) for name, *rest in HEADERS]
)
async def test_profiles_and_instructions_that_do_not_apply(
    bad: tuple[Running, FakeBase], headers: dict[str, str], change: dict[str, Any], status: int, param: str, code: str
) -> None:
    proxy, base = bad
    check(await proxy.post({**ASK, **change}, headers), status, param, code)
    assert not base.seen


async def test_a_tenant_that_lets_callers_choose_nothing(bad: tuple[Running, FakeBase]) -> None:
    proxy, base = bad
    frozen = {"Authorization": "Bearer sk-frozen"}
    not_allowed = "instruction_not_allowed"
    check(await proxy.post(ASK, {**frozen, "X-Visa-Instruction": "Hi."}), 403, "X-Visa-Instruction", not_allowed)
    check(await proxy.post(ASK, {**frozen, "X-Visa-Profile": "bold"}), 403, "X-Visa-Profile", "profile_not_allowed")
    body: dict[str, Any] = {"answer": "Hi."}
    path = "/v1/visa/rewrite"
    check(await proxy.post({**body, "instruction": "Be kind."}, frozen, path), 403, "instruction", not_allowed)
    check(await proxy.post({**body, "values": {"power": 1}}, frozen, path), 403, "values", not_allowed)
    check(await proxy.post({**body, "profile": "bold"}, frozen, path), 403, "profile", "profile_not_allowed")
    assert not base.seen


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}, {"Authorization": KEY}])
async def test_no_key(bad: tuple[Running, FakeBase], headers: dict[str, str]) -> None:
    proxy, base = bad
    for method, path in [
        ("POST", CHAT),
        ("GET", "/v1/models"),
        ("GET", "/v1/anything"),
        ("DELETE", CHAT),
        ("POST", "/v1/visa/detect"),
    ]:
        async with aiohttp.request(method, proxy.url + path, headers=headers) as got:
            check(Reply(got.status, got.headers, await got.read()), 401, "Authorization", "invalid_api_key")
    assert not base.seen


@pytest.mark.parametrize("key", ["sk-wrong", "x" * 5000, "ключ", KEY + " x", KEY.upper()])
async def test_a_wrong_key_is_not_repeated(bad: tuple[Running, FakeBase], key: str) -> None:
    reply = await bad[0].post(ASK, {"Authorization": f"Bearer {key}"})
    check(reply, 401, "Authorization", "invalid_api_key")
    assert key not in reply.body.decode()


async def test_a_key_in_azures_header(bad: tuple[Running, FakeBase]) -> None:
    proxy, _ = bad
    async with aiohttp.request("POST", proxy.url + CHAT, json={**ASK, "n": 0}, headers={"api-key": KEY}) as got:
        check(Reply(got.status, got.headers, await got.read()), 400, "n", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("PUT", CHAT), ("DELETE", CHAT), ("POST", "/v1/models"), ("GET", "/v1/visa/detect"), ("GET", CHAT + "/")],
)
async def test_wrong_methods(bad: tuple[Running, FakeBase], method: str, path: str) -> None:
    proxy, base = bad
    async with proxy.http.request(method, proxy.url + path) as got:
        check(Reply(got.status, got.headers, await got.read()), 405, None, "method_not_allowed")
    assert not base.seen


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/nowhere", "/v2/chat/completions", "/v1/visa/nothing", "/v1/visa", "/v1/visa/detect/x",
        # Paths that another server may read as a different one: the base's administration, or a way around the rewriting.
        "/v1/load_lora_adapter", "/v1/load_lora_adapter/", "/v1/%6Coad_lora_adapter", "/v1//chat/completions",
        "/v1/./chat/completions", "/v1/x/../chat/completions", "/v1/%2e%2e/admin", "/v1/a%2F..%2Fb", "/%76%31/files",
        "/v1/a%0d%0aX:%20y", "/v1/a%5Cb",
    ],
)  # fmt: skip
async def test_unknown_urls(bad: tuple[Running, FakeBase], path: str) -> None:
    proxy, base = bad
    async with proxy.http.post(URL(proxy.url + path, encoded=True), json=ASK) as got:
        message = check(Reply(got.status, got.headers, await got.read()), 404, None, "unknown_url")
    assert "Unknown request URL: POST /" in message
    assert not base.seen


async def test_a_slash_at_the_end_is_no_way_around_the_checks(bad: tuple[Running, FakeBase]) -> None:
    proxy, base = bad
    check(await proxy.post({**ASK, "n": 0}, path=f"{CHAT}/"), 400, "n", None)
    check(await proxy.post({**ASK, "n": 0}, path="/v1/chat%2Fcompletions"), 400, "n", None)
    assert not base.seen


@pytest.mark.parametrize("path", [CHAT, "/v1/visa/detect", "/v1/files"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit(bad: tuple[Running, FakeBase], path: str, declared: bool) -> None:
    proxy, base = bad
    raw = json.dumps({**ASK, "user": "x" * 60_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 1000):
            yield raw[start : start + 1000]

    async with proxy.http.post(proxy.url + path, data=raw if declared else pieces()) as got:
        message = check(Reply(got.status, got.headers, await got.read()), 413, "body", "payload_too_large")
    assert "52428 bytes" in message
    assert not base.seen


async def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(bad: tuple[Running, FakeBase]) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9999999999\r\n\r\n"
    check(await exchange(bad[0], head.encode()), 413, "body", "payload_too_large")


async def test_an_unknown_model_is_the_bases_to_refuse(bad: tuple[Running, FakeBase]) -> None:
    proxy, base = bad
    for profile in ("bold", "off"):
        reply = await proxy.post({**ASK, "model": "gpt-99"}, {"X-Visa-Profile": profile})
        assert (reply.status, reply.json["error"]["message"]) == (404, "The model does not exist.")
        assert reply.headers["x-request-id"]
    check(await proxy.post({**ASK, "model": "gpt-99"}), 404, "model", "404")
    base.seen.clear()


async def exchange(proxy: Running, raw: bytes) -> Reply:
    """Send bytes, read one answer."""
    reader, writer = await asyncio.open_connection(HOST, int(proxy.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(5):
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            return Reply(int(status.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("line", "param", "code"),
    [
        (b"X-Visa-Profile: \xff\xfe", "X-Visa-Profile", "invalid_header"),
        (b"X-Visa-Instruction: caf\xe9", "X-Visa-Instruction", "invalid_header"),
        (b"X-Visa-Profile: bo\tld", "X-Visa-Profile", "invalid_header"),
        (b"X-Visa-Instruction: a\tb", "X-Visa-Instruction", "invalid_header"),
        # These never become headers: the parser of HTTP itself refuses them.
        (b"X-Visa-Profile: bo\x00ld", None, "invalid_http"),
        (b"X-Visa-Instruction: \x01\x02", None, "invalid_http"),
        (b"X Visa Profile: bold", None, "invalid_http"),
        (b"no header at all", None, "invalid_http"),
        (b"Content-Length: -5", None, "invalid_http"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", None, "invalid_http"),
    ],
)
async def test_header_garbage(bad: tuple[Running, FakeBase], line: bytes, param: str | None, code: str) -> None:
    proxy, base = bad
    body = json.dumps(ASK).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    raw = head + line + (b"" if code == "invalid_http" else b"\r\nContent-Length: %d" % len(body)) + b"\r\n\r\n" + body
    check(await exchange(proxy, raw), 400, param, code)
    assert not base.seen


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xa5" * 20])
async def test_what_is_no_http(bad: tuple[Running, FakeBase], raw: bytes) -> None:
    check(await exchange(bad[0], raw), 400, None, "invalid_http")


async def test_after_all_that_it_serves_as_before(bad: tuple[Running, FakeBase]) -> None:
    proxy, base = bad
    reply = await proxy.post(ASK, {"X-Visa-Profile": "off"})
    assert reply.status == 200
    assert len(base.seen) == 1
    base.seen.clear()
    metrics = (await proxy.get("/metrics")).body.decode()
    assert "visa_requests_in_flight 1.0" not in metrics
