"""Config to translator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError
from visa_proxy.translator.base import Translator
from visa_proxy.translator.encoder import EncoderTranslator

KINDS: Final = ("encoder",)
BUNDLED: Final = Path(__file__).parent.parent / "assets" / "translator"


def load_translator(config: Mapping[str, Any], encoder: SentenceEncoder) -> Translator:
    """`config`: the `translator` section of visa.yaml: `kind`, and for kind encoder an optional `path`.

    Without a path it is the bundled head.

    Raises ConfigError for an unknown kind or key, and for weights that cannot be read.
    """
    kind = config.get("kind", "encoder")
    if kind not in KINDS:
        raise ConfigError([f"translator.kind: unknown kind {kind!r}; allowed: {', '.join(KINDS)}"])
    if unknown := sorted(set(config) - {"kind", "path"}):
        raise ConfigError([f"translator.{key}: unknown key; allowed: kind, path" for key in unknown])
    return EncoderTranslator(encoder, Path(config.get("path") or BUNDLED))
