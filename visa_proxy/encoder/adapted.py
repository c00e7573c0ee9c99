"""A folder of weights that brings its own last layers of the encoder along."""

from __future__ import annotations

import hashlib
from pathlib import Path

from visa_proxy.encoder.bert import LAYERS
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError


def adapted_encoder(folder: Path) -> SentenceEncoder:
    """The encoder that the heads in `folder` read from: the published one where it holds no layers."""
    file = folder / LAYERS
    return SentenceEncoder(layers=file if file.is_file() else None)


def digest(folder: Path) -> str:
    """Which encoder this is: the first 16 hex digits of the SHA-256 of its layers, or "frozen"."""
    file = folder / LAYERS
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "frozen"


def check_made_for(file: Path, encoder: str | None, folder: Path, what: str = "it") -> None:
    """Raises ConfigError when the head in `file`, made for the encoder of this digest, would read from another one in `folder`."""
    if encoder != (found := digest(folder)):
        raise ConfigError([f"{file}: made for the encoder {encoder}, but {folder} holds {found}; train {what} again"])
