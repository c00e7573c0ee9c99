"""LoRA adapters as PEFT writes them, and a server that has them as vLLM does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from aiohttp import web
from safetensors.numpy import save_file


def publish(folder: Path, *, rank: int = 4, seed: int = 0) -> None:
    """An adapter with random weights; over one that is there, if so."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    weights = np.random.default_rng(seed).standard_normal((rank, 32), dtype=np.float32)
    save_file({"base_model.model.layers.0.q_proj.lora_A.weight": weights}, folder / "adapter_model.safetensors")


@dataclass
class LoraServer:
    """Model listing, loading and unloading, with the answers that vLLM 0.32 gives."""

    models: dict[str, str] = field(default_factory=lambda: {"base": "/models/base"})
    """Name to path."""
    told: list[tuple[str, str]] = field(default_factory=list)
    """("load" or "unload", name) of what was asked for."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Why an adapter cannot be loaded."""
    key: str | None = None
    """The key without which nothing is answered."""
    updating: bool = True
    """Started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."""
    down: bool = False
    """It answers nothing but 503."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    def loaded(self) -> list[str]:
        """Every load that was asked for."""
        return [name for what, name in self.told if what == "load"]

    async def _list(self, request: web.Request) -> web.Response:
        if self.down:
            raise web.HTTPServiceUnavailable
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response({"object": "list", "data": [{"id": name, "root": path} for name, path in self.models.items()]})

    async def _load(self, request: web.Request) -> web.Response:
        if not self.updating:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        self.told.append(("load", name))
        if (why := self.refuse.get(name.partition("@")[0])) is not None:
            return _error(500, why)
        if name in self.models:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(path).is_dir():  # noqa: ASYNC240
            return _error(404, f"No adapter found for '{path}'")
        self.models[name] = path
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.told.append(("unload", name))
        if self.models.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text="Success")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "InternalServerError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
