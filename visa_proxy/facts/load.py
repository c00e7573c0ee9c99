"""Config -> fact analyzer."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.facts.nli import EntailmentAnalyzer

KINDS: Final = ("nli",)
_KEYS: Final = ("kind", "path")
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def load_facts(config: Mapping[str, Any] = NOTHING) -> FactAnalyzer:
    """`config` is visa.yaml's `facts`: `{kind: nli}`, with `path` for other weights than the bundled ones.

    Raises ConfigError for an unknown kind or key and for weights that cannot be read, MissingExtra without torch.
    """
    kind = config.get("kind", "nli")
    if kind not in KINDS:
        raise ConfigError([f"facts.kind: {kind!r} is unknown; allowed: {', '.join(KINDS)}"])
    if unknown := sorted(str(key) for key in config if key not in _KEYS):
        raise ConfigError([f"facts.{key}: unknown key; allowed: {', '.join(_KEYS)}" for key in unknown])
    path = config.get("path")
    if path is not None and not isinstance(path, str | Path):
        raise ConfigError([f"facts.path: {path!r} is not a path"])
    return EntailmentAnalyzer(Path(path) if path else bundled_weights())


def bundled_weights() -> Path:
    """The folder of the weights that come with the package."""
    return Path(str(importlib.resources.files("visa_proxy.assets"))) / "facts"
