"""Config to detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from visa_proxy.detector.base import Detector
from visa_proxy.detector.encoder import EncoderDetector
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError

KINDS: Final = ("encoder",)
BUNDLED: Final = Path(__file__).parent.parent / "assets" / "detector"


def load_detector(config: Mapping[str, Any], encoder: SentenceEncoder) -> Detector:
    """`config`: the `detector` section of visa.yaml: `kind`, and for kind encoder an optional `path`.

    Without a path it is the bundled head.

    Raises ConfigError for an unknown kind or key, and for weights that cannot be read.
    """
    kind = config.get("kind", "encoder")
    if kind not in KINDS:
        raise ConfigError([f"detector.kind: unknown kind {kind!r}; allowed: {', '.join(KINDS)}"])
    if unknown := sorted(set(config) - {"kind", "path"}):
        raise ConfigError([f"detector.{key}: unknown key; allowed: kind, path" for key in unknown])
    return EncoderDetector(encoder, Path(config.get("path") or BUNDLED))
