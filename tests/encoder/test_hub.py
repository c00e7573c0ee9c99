"""Weights from a hub: a server that speaks the hub's protocol for one model, and a process that fetches from it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from tests.fakes.http import serving
from visa_proxy.translator.encoder import BUNDLED

COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
NAME: Final = "acme/translator"
LOADS: Final = """\
import sys
from visa_proxy.errors import ConfigError
from visa_proxy.llm.instrument import Settings
from visa_proxy.translator.load import load_translator
try:
    load_translator(Settings(path=sys.argv[1]))
    print("loaded")
except ConfigError as error:
    print(error)
"""


@pytest.fixture
async def hub() -> AsyncIterator[tuple[str, list[str]]]:
    """Its URL, and the files that were fetched."""
    fetched: list[str] = []
    files = {file.name: file.read_bytes() for file in BUNDLED.iterdir()} | {
        "trap.py": b"raise SystemExit",
        "model.bin": b"pickle",
    }

    async def model(request: web.Request) -> web.Response:
        siblings = [{"rfilename": name} for name in files]
        return web.json_response({"id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []})

    async def tree(request: web.Request) -> web.Response:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content, usedforsecurity=False).hexdigest()}
            for name, content in files.items()
        ]
        return web.json_response(entries)

    async def file(request: web.Request) -> web.Response:
        content = files[request.match_info["file"]]
        headers = {"ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if request.method == "GET":
            fetched.append(request.match_info["file"])
        return web.Response(body=content, headers=headers)

    app = web.Application()
    app.router.add_get(f"/api/models/{NAME}/revision/{{revision}}", model)
    app.router.add_get(f"/api/models/{NAME}/tree/{{revision}}", tree)
    app.router.add_get(f"/{NAME}/resolve/{{revision}}/{{file}}", file)
    async with serving(app) as url:
        yield url, fetched


async def _load(url: str, weights: str, home: Path) -> str:
    """What a process says that loads a translator from the hub at `url`."""
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LOADS, weights, stdout=asyncio.subprocess.PIPE, env=env)
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return output.decode().strip()


async def test_weights_are_fetched_once_and_nothing_that_could_run(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    url, fetched = hub
    assert await _load(url, f"hf://{NAME}@main", tmp_path) == "loaded"
    assert sorted(fetched) == ["MODEL_CARD.md", "head.safetensors", "layers.safetensors"]
    assert await _load(url, f"hf://{NAME}", tmp_path) == "loaded"
    assert len(fetched) == 3


async def test_a_model_that_is_not_there(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    said = await _load(hub[0], "hf://acme/nothing", tmp_path)
    assert said.startswith("hf://acme/nothing: cannot be had from the hub: ")
