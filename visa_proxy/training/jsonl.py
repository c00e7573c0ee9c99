"""JSON Lines: the corpora in this package, and files of others."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from visa_proxy.errors import ConfigError


def bundled(folder: str) -> list[Traversable]:
    """The `*.jsonl` of a folder below `data/` of this package, by name; none where there is no such folder."""
    place = importlib.resources.files("visa_proxy.training").joinpath("data", *folder.split("/"))
    return sorted((f for f in place.iterdir() if f.name.endswith(".jsonl")), key=lambda f: f.name) if place.is_dir() else []


def records(*files: Path | Traversable) -> Iterator[dict[str, Any]]:
    """The object of every line, file by file. Raises ConfigError naming a file that cannot be read, or is no JSON."""
    for file in files:
        try:
            for line in file.read_text(encoding="utf-8").split("\n"):
                if line.strip():
                    yield json.loads(line)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError([f"{file}: {error}"]) from error
