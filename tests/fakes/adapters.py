"""LoRA adapters as PEFT writes them, and a server that has them as vLLM does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """Name to root; the base's, and adapters that were there before."""
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What was loaded and unloaded, or tried to be."""
    refuse: str | None = None
    """Why loading fails."""
    down: bool = False
    """It answers nothing but 503."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    def loaded(self) -> list[tuple[str, bool]]:
        """(name, in place) of every load that was asked for."""
        return [(body["lora_name"], body["load_inplace"]) for path, body in self.told if path == "load"]

    async def _list(self, request: web.Request) -> web.Response:
        if self.down:
            return _error(503, "starting")
        return web.json_response({"object": "list", "data": [{"id": name, "root": root} for name, root in self.models.items()]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.told.append(("load", body))
        if self.refuse is not None:
            return _error(500, self.refuse)
        if body["lora_name"] in self.models and not body["load_inplace"]:
            return _error(400, "has already been loaded")
        if not Path(body["lora_path"]).is_dir():  # noqa: ASYNC240
            return _error(404, "No adapter found")
        self.models[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.told.append(("unload", body))
        if self.models.pop(body["lora_name"], None) is None:
            return _error(404, "cannot be found")
        return web.Response(text="Success")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "InternalServerError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
