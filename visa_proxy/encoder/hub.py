"""Weights from the Hugging Face hub, where they are not in a folder of this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

SCHEME: Final = "hf://"
FILES: Final = ("*.safetensors", "*.yaml", "*.md")
"""What is fetched: nothing that could run."""


def folder_of(weights: str, bundled: Path) -> Path:
    """The folder `weights`, `bundled` where none is named.

    Of `hf://owner/name` or `hf://owner/name@revision` it is the one in the hub's cache, fetched once.

    Raises ConfigError when there is no such folder, or the hub gives no such model.
    """
    if not weights:
        return bundled
    if not weights.startswith(SCHEME):
        return _folder(Path(weights))
    hub = need("huggingface_hub", extra="local")
    name, _, revision = weights.removeprefix(SCHEME).partition("@")
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:  # of the hub's library, of the HTTP library under it, and OSError
        raise ConfigError([f"{weights}: cannot be had from the hub: {type(error).__name__}"]) from error


def _folder(path: Path) -> Path:
    with contextlib.suppress(OSError):  # a name that no file can have
        if path.is_dir():
            return path
    raise ConfigError([f"{str(path)[:200]}: there is no such folder"])
