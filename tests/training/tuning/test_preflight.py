"""What would fail after an hour fails at once: packages, servers, folders, models."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.fakes.tuning import recipe_file
from visa_proxy.errors import ConfigError, MissingExtra
from visa_proxy.training.tuning import preflight
from visa_proxy.training.tuning.models import SIZES, Start, start, tokenizer_of
from visa_proxy.training.tuning.recipe import load


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def check(folder: Path, url: str) -> None:
    server = ("beta: 0.01", f'beta: 0.01, use_vllm: true, vllm_mode: server, vllm_server_base_url: "{url}"')
    file = recipe_file(folder / "mine.yaml", server)
    preflight.check(load(str(file), "grpo"), "grpo", str(file), "none", lora=False)


def test_a_vllm_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"mine.yaml: grpo.vllm_server_base_url: no vLLM server answers at {url}"):
        check(tmp_path, url)
    assert time.monotonic() - started < 10


def test_a_server_that_is_no_vllm(tmp_path: Path) -> None:
    with answering(503) as url, pytest.raises(ConfigError, match=r"answers 503 to /health"):
        check(tmp_path, url)
    with pytest.raises(ConfigError, match=r"found 'ftp://x', allowed: http://host:port"):
        check(tmp_path, "ftp://x")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_vllm_itself_is_needed(tmp_path: Path) -> None:
    with answering(200) as url, pytest.raises(ConfigError, match=r"grpo.use_vllm: vllm is not installed"):
        check(tmp_path, url)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe, found = load(str(recipe_file(tmp_path / "mine.yaml")), "grpo"), importlib.util.find_spec
    for gone, report, said in (
        ("peft", "none", r'pip install "visa-proxy\[train\]"'),
        ("tensorboard", "tensorboard", "pip install tensorboard"),
    ):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, gone=gone: None if name == gone else found(name))
        with pytest.raises((MissingExtra, ConfigError), match=said):
            preflight.check(recipe, "grpo", "mine", report, lora=True)
    monkeypatch.setattr(importlib.util, "find_spec", found)
    preflight.check(recipe, "grpo", "mine", "none", lora=True)


def test_models(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "holds no model"), ("none", "no such folder"), ("../x", "no such folder")):
        with pytest.raises(ConfigError, match=said):
            start(str(tmp_path / name) if name != "../x" else name, tmp_path, 0)
    with pytest.raises(ConfigError, match="allowed sizes: 2m, 6m, 15m"):
        start("scratch-7b", tmp_path, 0)
    assert start("Qwen/Qwen3-0.6B", tmp_path, 0) == Start("Qwen/Qwen3-0.6B")
    config = tmp_path / "empty" / "adapter_config.json"
    config.write_text('{"base_model_name_or_path": "a/base"}', encoding="utf-8")
    found = start(str(tmp_path / "empty"), tmp_path, 0)
    assert (found.adapter, found.tokenizer) == (True, "a/base")
    config.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="base_model_name_or_path: found nothing, allowed: a text"):
        start(str(tmp_path / "empty"), tmp_path, 0)


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(start("bundled", tmp_path, 0))
    assert tokenizer.padding_side == "left" and tokenizer.pad_token
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match="no chat template"):
        tokenizer_of(Start(str(tmp_path / "plain")))


@pytest.mark.parametrize("size", SIZES)
def test_new_models_have_the_size_in_their_name(size: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    begin = start(f"scratch-{size}", tmp_path, 0)
    again = start(f"scratch-{size}", tmp_path, 0)
    parameters = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(begin.model).parameters())
    assert begin == again and parameters / 1e6 == pytest.approx(float(size.removesuffix("m")), rel=0.15)
    assert not begin.adapter
