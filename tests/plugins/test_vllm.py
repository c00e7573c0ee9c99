"""The middleware and the endpoint plugin around a server that is built as vLLM's is: its key check, its lifespan, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from tests.fakes.http import HOST, until
from tests.fakes.policies import KEY, plain, policy
from tests.fakes.rewriter import ASKED, asked_text, reply, thrilled
from tests.fakes.said import ANSWER, QUESTION
from visa_proxy.plugins.vllm import EndpointPlugin, VisaMiddleware

VLLM_KEY = "sk-of-vllm"
BODY = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
CONFIG = """\
policies: ./policies
bases: {default: {inner: true, api_key_env: VLLM_API_KEY}}
rewriter: {inner: true, model: m, api_key_env: VLLM_API_KEY}
"""


class KeyCheck:
    """vLLM's AuthenticationMiddleware: under /v1 its own key, elsewhere none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if path.startswith("/v1") and dict(scope["headers"]).get(b"authorization") != f"Bearer {VLLM_KEY}".encode():
            await JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@dataclass
class Host:
    """The server around; endpoints find their state by `request.app`, as vLLM's do."""

    events: list[str] = field(default_factory=list)

    def app(self, *middleware: Any) -> Starlette:
        """`middleware`: the outermost first."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            app.state.host = self
            self.events.append("started")
            yield
            self.events.append("ended")
            del app.state.host  # a call that comes after the end finds nothing

        routes = [
            Route("/v1/models", _models),
            Route("/v1/chat/completions", _chat, methods=["POST"]),
            Route("/health", lambda request: PlainTextResponse("fine")),
            Route("/metrics", lambda request: PlainTextResponse("vllm_x 1\n")),
            Route("/readyz", lambda request: PlainTextResponse("vllm's own")),
            WebSocketRoute("/echo", _echo),
        ]
        return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(each) for each in (*middleware, KeyCheck)])


async def _models(request: Request) -> Response:
    assert request.app.state.host
    return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "vllm"}]})


async def _chat(request: Request) -> Response:
    request.app.state.host.events.append("called")
    body = await request.json()
    asked = body["messages"][-1]["content"]
    said = reply(thrilled(asked_text(body)) if ASKED in asked else ANSWER)
    if not body.get("stream"):
        return JSONResponse(said)

    async def events() -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes


@dataclass
class Serving:
    """The host on a port."""

    url: str
    http: aiohttp.ClientSession

    async def ask(self, path: str, *, key: str | None = None, json: Any = None, headers: dict[str, str] | None = None) -> Answer:
        given = ({"Authorization": f"Bearer {key}"} if key else {}) | (headers or {})
        async with self.http.request("POST" if json else "GET", self.url + path, headers=given, json=json) as got:
            return Answer(got.status, got.headers, await got.read())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A visa.yaml and a tenant that passes through; named in the environment."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "acme.yaml").write_text(plain())
    (tmp_path / "visa.yaml").write_text(CONFIG)
    monkeypatch.setenv("VISA_CONFIG", str(tmp_path / "visa.yaml"))
    monkeypatch.setenv("VLLM_API_KEY", VLLM_KEY)
    return tmp_path


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, **settings: Any) -> AsyncIterator[Serving]:
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=0, log_config=None, **settings))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done(), 10, "the server's start")
    url = f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            yield Serving(url, http)
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task


@pytest.mark.parametrize("way", ["middleware", "plugin", "both"])
async def test_a_tenant_is_adapted_by_calls_with_the_servers_own_key(folder: Path, way: str) -> None:
    (folder / "policies" / "acme.yaml").write_text(policy(shield="{retries: 0, streaming: full, min_consistency: 0.3}"))
    host = Host()
    app = host.app(*[VisaMiddleware] * (way != "plugin"))
    if way != "middleware":
        plugin = EndpointPlugin()
        plugin.attach_router(app)
        if way == "plugin":
            app.middleware_stack = app.build_middleware_stack()  # as vLLM 0.32 has it by then
        await plugin.init_state(None, app.state, None)
    async with serving(app) as server:
        # The server does not wait for our models; meanwhile tenants hear the base's own words.
        early = await server.ask("/v1/chat/completions", key=KEY, json=BODY)
        assert (early.status, early.headers["x-visa-status"]) == (200, "fallback:not-ready")
        assert (await server.ask("/visa/readyz")).status == 503
        assert (await server.ask("/v1/chat/completions", key=VLLM_KEY, json=BODY)).status == 200
        deadline = time.monotonic() + 60
        while (await server.ask("/visa/readyz")).status != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        later = await server.ask("/v1/chat/completions", key=KEY, json=BODY)
        assert later.headers["x-visa-status"] == "adapted"
        assert b"For the thrill of it" in later.body
        metrics = await server.ask("/visa/metrics")
        assert b'tenant="acme"' in metrics.body
    assert host.events == ["started", *["called"] * 4, "ended"]


class TestWhoseRequestItIs:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": f"Bearer {KEY}"},
            {"Authorization": f"bearer  {KEY}"},
            {"api-key": KEY},
        ],
    )
    async def test_a_tenants_key_is_known_however_it_comes(self, folder: Path, headers: dict[str, str]) -> None:
        async with serving(Host().app(VisaMiddleware)) as server:
            answer = await server.ask("/v1/chat/completions", json=BODY, headers=headers)
            assert (answer.status, answer.headers["x-visa-tenant"]) == (200, "plain")
            assert answer.body == (await server.ask("/v1/chat/completions", json=BODY, key=VLLM_KEY)).body
            listed = await server.ask("/v1/models", headers=headers)
            assert b'"m@off"' in listed.body

    async def test_what_is_not_a_tenants_is_the_servers_own_to_the_byte(self, folder: Path) -> None:
        paths = "/v1/models /v1/visa/detect /v1/nothing /v1 /health /metrics /readyz /visa/other /visa/ //v1/models".split()
        async with serving(Host().app(VisaMiddleware)) as with_us, serving(Host().app()) as without:
            for path in paths:
                for key in (None, "sk-wrong", VLLM_KEY):
                    ours, theirs = await with_us.ask(path, key=key), await without.ask(path, key=key)
                    assert (ours.status, ours.body) == (theirs.status, theirs.body), (path, key)
                    assert ours.headers.keys() == theirs.headers.keys(), (path, key)

    async def test_a_tenants_key_outside_of_v1_is_nothing_to_us(self, folder: Path) -> None:
        async with serving(Host().app(VisaMiddleware)) as server:
            assert (await server.ask("/health", key=KEY)).body == b"fine"
            async with server.http.ws_connect(server.url + "/echo", headers={"Authorization": f"Bearer {KEY}"}) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"

    async def test_a_request_for_a_tenant_that_is_more_than_its_key_says_is_refused(self, folder: Path) -> None:
        async with (
            serving(Host().app(VisaMiddleware)) as server,
            server.http.get(
                f"{server.url}/v1/models", headers=[("Authorization", f"Bearer {VLLM_KEY}"), ("Authorization", f"Bearer {KEY}")]
            ) as got,
        ):
            assert got.status == 400

    async def test_the_servers_own_key_may_be_a_tenants(self, folder: Path) -> None:
        (folder / "policies" / "acme.yaml").write_text(policy(key=VLLM_KEY, default="off"))
        async with serving(Host().app(VisaMiddleware)) as server:
            answer = await server.ask("/v1/chat/completions", key=VLLM_KEY, json=BODY)
            assert (answer.status, answer.headers["x-visa-tenant"]) == (200, "acme")

    async def test_under_a_root_path(self, folder: Path) -> None:
        async with serving(Host().app(VisaMiddleware), root_path="/llm") as server:
            answer = await server.ask("/v1/chat/completions", key=KEY, json=BODY)
            assert (answer.status, answer.headers["x-visa-tenant"]) == (200, "plain")
            assert (await server.ask("/visa/healthz")).body == b'{"status":"ok"}'
            assert (await server.ask("/health")).body == b"fine"

    async def test_a_stream_passes_through(self, folder: Path) -> None:
        async with serving(Host().app(VisaMiddleware)) as server:
            answer = await server.ask("/v1/chat/completions", key=KEY, json={**BODY, "stream": True})
            assert answer.body == b"data: {}\n\ndata: [DONE]\n\n"
            assert answer.headers["x-visa-stream-mode"] == "passthrough"


class TestWhatIsWrongEndsTheServerBeforeItListens:
    async def refused(self, caplog: pytest.LogCaptureFixture) -> str:
        """What the server logged before it refused to start."""
        host = Host()
        server = uvicorn.Server(uvicorn.Config(host.app(VisaMiddleware), host=HOST, port=0, log_config=None))
        with caplog.at_level(logging.INFO, "uvicorn"), contextlib.suppress(SystemExit):
            await server.serve()
        assert not server.started
        assert host.events == ["started", "ended"]
        said = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"][-2:]
        assert said[1] == "Application startup failed. Exiting."
        assert said[0].startswith("visa-proxy cannot start: ")
        return said[0].removeprefix("visa-proxy cannot start: ")

    @pytest.mark.parametrize("value", [None, "", " "])
    async def test_no_config(
        self, folder: Path, value: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("VISA_CONFIG")
        if value is not None:
            monkeypatch.setenv("VISA_CONFIG", value)
        said = await self.refused(caplog)
        assert said == "environment variable VISA_CONFIG is not set (or empty); allowed: the path of a visa.yaml"

    async def test_a_config_that_is_not_there(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("VISA_CONFIG", "/nowhere/visa.yaml")
        said = await self.refused(caplog)
        assert said == "VISA_CONFIG=/nowhere/visa.yaml: /nowhere/visa.yaml:1:1: cannot be read: No such file or directory"

    async def test_a_broken_config_and_a_broken_policy(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        (folder / "visa.yaml").write_text(CONFIG + "colour: red\n")
        said = await self.refused(caplog)
        assert said.startswith(f"VISA_CONFIG={folder}/visa.yaml: {folder}/visa.yaml:4:1: colour")
        caplog.clear()
        (folder / "visa.yaml").write_text(CONFIG)
        (folder / "policies" / "acme.yaml").write_text(plain() + "colour: red\n")
        assert "acme.yaml:7:1: colour" in await self.refused(caplog)

    async def test_a_variable_that_the_config_names_and_nobody_set(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("VLLM_API_KEY")
        assert "environment variable VLLM_API_KEY is not set" in await self.refused(caplog)

    @pytest.mark.parametrize(("config", "place", "found"), [
        (CONFIG, "bases.default", "another one"),
        (CONFIG.replace(", api_key_env: VLLM_API_KEY", ""), "bases.default", "none"),
        (CONFIG.replace("inner: true,", 'url: "http://127.0.0.1:9/v1",', 1), "rewriter", "another one"),
    ])  # fmt: skip
    async def test_a_key_that_the_server_does_not_take(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, config: str, place: str, found: str
    ) -> None:
        monkeypatch.setenv("VLLM_API_KEY", "sk-other")
        (folder / "visa.yaml").write_text(config)
        said = await self.refused(caplog)
        assert f"{place}.api_key_env: vLLM asks for its API key; found {found}, allowed: one of its own" in said
        assert "sk-other" not in caplog.text
