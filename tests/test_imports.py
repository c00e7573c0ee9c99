"""Importing costs nothing and does nothing: checked in fresh interpreters."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import visa_proxy

GUESTS = ("visa_proxy.training", "visa_proxy.plugins.litellm", "visa_proxy.store")
"""Those that may need a heavy library: what they work for is there already when they are imported."""
ROOT = Path(visa_proxy.__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "vllm",
    "litellm",
    "sentence_transformers",
    "safetensors",
    "tokenizers",
    "matplotlib",
    "scipy",
    "statsmodels",
    "pandas",
    "sqlalchemy",
    "alembic",
    "psycopg",
    "jinja2",
    "peft",
    "datasets",
}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(visa_proxy.__path__, "visa_proxy.") if not module.name.endswith("__main__")
)

PROBE = """
import json, logging, os, signal, sys, threading
def state():
    handlers = {str(number): repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    return [dict(os.environ), os.getcwd(), threading.active_count(), logging.getLogger().level, len(logging.getLogger().handlers),
            handlers, sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None]
before = state()
names = json.loads(sys.argv[1])
failed = {}
for name in names:
    try:
        __import__(name)
    except ImportError as error:
        failed[name] = str(error)
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"before": before, "after": state(), "failed": failed, "loaded": loaded}))
"""


def probe(names: list[str]) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(names)], capture_output=True, text=True, cwd=ROOT, timeout=100, check=True
    )
    assert not done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("names", [["visa_proxy.server.app", "visa_proxy.server.run"], ["visa_proxy.cli", "visa_proxy.cli.main"]])
def test_the_entry_points_load_no_heavy_library(names: list[str]) -> None:
    result = probe(names)
    assert not HEAVY & set(result["loaded"])
    assert not result["failed"]


def test_every_module_is_imported_without_effect_and_outside_training_without_heavy_libraries() -> None:
    result = probe([name for name in MODULES if not name.startswith(GUESTS)])
    assert not result["failed"]
    assert not HEAVY & set(result["loaded"])
    assert result["after"] == result["before"]


def test_the_training_modules_can_be_imported() -> None:
    result = probe([name for name in MODULES if name.startswith("visa_proxy.training")])
    assert not result["failed"]
    assert not {"vllm", "litellm"} & set(result["loaded"])
