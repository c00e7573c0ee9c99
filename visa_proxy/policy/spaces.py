"""What the configured detector measures, and so what policies may name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import parse_config, spaces_of
from visa_proxy.values import Space, join, load_spaces


def measured_space(names: Iterable[str] = ()) -> Space:
    """Schwartz's space and those of `names`, joined in this order.

    Raises ConfigError for one that is not there, and two that do not go together.
    """
    return join(load_spaces(names))


def named_spaces(config: Path) -> tuple[str, ...]:
    """See `spaces_of`, without a look at the environment. Raises ConfigError with every problem of the file, or of its spaces."""
    names, problems = spaces_of(*parse_config(config))
    if problems:
        raise ConfigError(problems)
    return names
