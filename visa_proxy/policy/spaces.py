"""What the configured detector measures, and so what policies may name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import read_config
from visa_proxy.values import Space, is_path, join, load_spaces


def measured_space(names: Iterable[str] = ()) -> Space:
    """Schwartz's space and those that `detector.spaces` names, joined in this order.

    Raises ConfigError with every problem of a space's file, or naming the key where there is no such space or two do not go together.
    """
    try:
        return join(load_spaces(names))
    except ConfigError as error:
        placed = re.compile(r".*?:\d+:\d+: ", re.DOTALL)
        raise ConfigError([each if placed.match(each) else f"detector.spaces: {each}" for each in error.problems]) from error


def named_spaces(config: Path) -> tuple[str, ...]:
    """The `detector.spaces` of a visa.yaml, folders as absolute paths, without a look at the environment. Raises ConfigError."""
    folder = config.parent
    names = read_config(config).detector.spaces
    return tuple(os.path.abspath(folder / Path(name).expanduser()) if is_path(name) else name for name in names)  # noqa: PTH100
