"""What must hold before a run starts: nothing is worse than an hour of training that ends in a missing package."""

from __future__ import annotations

import importlib.util
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from visa_proxy.errors import ConfigError
from visa_proxy.optional import installed
from visa_proxy.training.tuning.arguments import Method
from visa_proxy.training.tuning.recipe import RecipeBase, recipe_path

PATIENCE_S: Final = 3.0
NEEDED: Final = ("torch", "transformers", "datasets", "accelerate", "trl")
REPORTS: Final = {"tensorboard": "tensorboard", "wandb": "wandb"}


def check(recipe: RecipeBase, method: Method, name: str, report_to: str, *, lora: bool) -> None:
    """Raises MissingExtra for a package that is not there, ConfigError for a vLLM server that does not answer."""
    for package in (*NEEDED, *(("peft",) if lora else ())):
        installed(package, extra="train")
    if (package := REPORTS.get(report_to, "")) and importlib.util.find_spec(package) is None:
        raise ConfigError([f"--report-to {report_to}: {package} is not installed: run  pip install {package}"])
    section: Any = getattr(recipe, method)
    if getattr(section, "use_vllm", None):
        _vllm(section, f"{recipe_path(name)}: {method}")


def _vllm(section: Any, place: str) -> None:
    if section.vllm_mode == "server":
        host, port = section.vllm_server_host or "127.0.0.1", section.vllm_server_port or 8000
        url = section.vllm_server_base_url or f"http://{host}:{port}"
        key = "vllm_server_base_url" if section.vllm_server_base_url else "vllm_server_port"
        _reach(url, f"{place}.{key}")
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError([f"{place}.use_vllm: vllm is not installed: run  pip install vllm , or set use_vllm: false"])


def _reach(url: str, place: str) -> None:
    """A look at the server's health, with a limit: TRL itself would wait for minutes, after the model has been loaded."""
    import http.client

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError([f"{place}: found {url[:100]!r}, allowed: http://host:port"])
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError([f"{place}: no vLLM server answers at {url}: {reason}; start it with  vllm serve"]) from error
    finally:
        connection.close()
    if status != 200:
        raise ConfigError([f"{place}: the server at {url} answers {status} to /health: it is no vLLM server, or not ready"])
