"""The rewriter's server as far as it is ours: a launched process with its arguments, and adapters inside the server we run in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.adapters import publish
from tests.fakes.http import until
from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import Inner, Launch, RewriterConfig
from visa_proxy.server.engine import Engine

VLLM = '''\
#!{python}
"""What `python -m vllm.entrypoints.openai.api_server` is, as far as a supervisor sees it."""
import http.server, json, os, sys
arguments = sys.argv[1:]
open({log!r}, "w").write(json.dumps([arguments, os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING")]))
models = [{{"id": "mine", "root": "/x"}}]
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        self.answer(json.dumps({{"data": models}}).encode() if self.path == "/v1/models" else b"")
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "lora_name" in body:
            models.append({{"id": body["lora_name"], "root": body["lora_path"]}})
        self.answer(b"{{}}")
http.server.ThreadingHTTPServer(("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Handler).serve_forever()
'''


async def test_a_launched_vllm_gets_its_arguments_and_its_adapters(tmp_path: Path) -> None:
    program, log = tmp_path / "python", tmp_path / "arguments.json"
    program.write_text(VLLM.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    for name, rank in (("acme", 40), ("pebble", 8)):
        publish(tmp_path / "voices" / name, rank=rank)
    launch = Launch(
        "vllm", "Org/Model", served_model_name="mine", args=("--max-loras", "3"), python=str(program), start_timeout_s=30
    )
    async with new_session() as session:
        engine = Engine(RewriterConfig(launch=launch, adapters=tmp_path / "voices"), session)
        engine.want({"acme", "nobody"})
        try:
            await engine.start()
            await engine.wait_ready()
            await until(lambda: engine.state.adapters.get("acme") == "ready", 10, "the adapter")
            state = engine.state
            assert (state.launched, state.ready, state.restarts) == (True, True, 0)
            assert state.adapters == {"acme": "ready", "nobody": "there is no such adapter"}
            assert set(state.served) == {"acme"} and state.served["acme"].startswith("acme@")
            assert engine.address.model == "mine"
        finally:
            await engine.stop()
    arguments = log.read_text()
    for wanted in (
        '"Org/Model"',
        '"--served-model-name", "mine"',
        '"--max-lora-rank", "64"',
        '"--max-loras", "3"',
        "ngram",
        '"1"]',
    ):
        assert wanted in arguments, arguments
    assert arguments.count("--max-loras") == 1, "what the config says wins"
    assert not engine.state.ready


async def test_an_engine_that_cannot_be_started_is_not_ready(tmp_path: Path) -> None:
    async with new_session() as session:
        engine = Engine(RewriterConfig(launch=Launch("vllm", "m", python=str(tmp_path / "nowhere"))), session)
        with pytest.raises(Exception, match=r"no program .*nowhere"):
            await engine.start()
        assert (engine.state.launched, engine.state.ready) == (True, False)
        await engine.stop()


async def test_adapters_of_the_server_that_we_run_in(tmp_path: Path) -> None:
    publish(tmp_path / "voices" / "acme")
    models: dict[str, str] = {"qwen": "/x"}
    keys = set()

    async def listed(request: Request) -> Response:
        keys.add(request.headers.get("authorization"))
        return JSONResponse({"data": [{"id": name, "root": root} for name, root in models.items()]})

    async def load(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        models[body["lora_name"]] = body["lora_path"]
        return PlainTextResponse("Success")

    app = Starlette(routes=[Route("/v1/models", listed), Route("/v1/load_lora_adapter", load, methods=["POST"])])
    config = RewriterConfig(Inner("acme", "sk-vllm"), adapters=tmp_path / "voices")
    engine = Engine(config, None, inner=app)
    engine.want(frozenset())
    await engine.start()
    try:
        await until(lambda: engine.state.adapters == {"acme": "ready"}, 5, "the adapter")
        assert models[engine.state.served["acme"]] == str(tmp_path / "voices" / "acme")
        assert keys == {"Bearer sk-vllm"}
        assert (engine.state.launched, engine.state.ready) == (False, True)
    finally:
        await engine.stop()
