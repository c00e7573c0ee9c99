"""The encoder detector's folder of weights: the adapted encoder, and a head for each value space.

    layers.safetensors     the encoder's last layers, trained further; may be missing
    <space>.safetensors    head of a bundled space

A space of one's own is a folder with `space.yaml` and `head.safetensors`, made by `visa-proxy train space` for one such encoder.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from visa_proxy.detector.encoder import EncoderDetector, SpaceHead, outputs
from visa_proxy.encoder.adapted import adapted_encoder, check_made_for
from visa_proxy.encoder.head import WEIGHTS, load_head
from visa_proxy.errors import ConfigError
from visa_proxy.values import Space, is_path, load_space, load_spaces

BUNDLED: Final = Path(__file__).parent.parent / "assets" / "detector"
SCHWARTZ: Final = "schwartz"


def load_encoder_detector(folder: Path = BUNDLED, spaces: Sequence[str] = ()) -> EncoderDetector:
    """The detector in `folder`, reading Schwartz's values and those of `spaces`: names of bundled ones, or folders.

    Raises ConfigError naming the file that is missing, garbled, or made for another encoder.
    """
    names = list(dict.fromkeys((SCHWARTZ, *spaces)))
    load_spaces(names)  # what is wrong with a name is said before anything is loaded
    encoder = adapted_encoder(folder)
    return EncoderDetector(encoder, [load_space_head(folder, name) for name in names])


def load_space_head(folder: Path, name: str) -> SpaceHead:
    """The head of the space `name` for the encoder in `folder`."""
    space, own = load_space(name), Path(name)
    file = (own if own.is_dir() else own.parent) / WEIGHTS if is_path(name) else folder / file_name(space)
    if not file.is_file():
        how = "detector" if name == SCHWARTZ else "space"
        missing = f"there is no head for the space {name!r} here; `visa-proxy train {how}` makes one"
        raise ConfigError([f"{file}: {missing}" if file.parent.is_dir() else f"{file.parent}: there is no such folder"])
    head = load_head(file, outputs(space))
    check_made_for(file, head.metadata.get("layers"), folder, "the space")
    return SpaceHead(space, head, _spread(file, head.metadata.get("spread", "1")))


def _spread(file: Path, found: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (spread := float(found)) < math.inf:
            return spread
    raise ConfigError([f"{file}: spread: found {found[:60]!r}, allowed: a number > 0"])


def file_name(space: Space) -> str:
    """Of the head for `space` in a detector's folder."""
    return f"{space.name}.safetensors"
