"""A value space: named dimensions in a fixed order."""

from __future__ import annotations

import functools
import importlib.resources
from dataclasses import dataclass

import yaml

from visa_proxy.errors import ConfigError


@dataclass(frozen=True)
class Dimension:
    """One value."""

    name: str
    """snake_case key used in policies, headers and JSON."""
    title: str
    goal: str
    """The motivational goal (paper, App. A.1)."""
    signals: str
    """Core definition and typical signals in an answer (paper, App. C, table of dimensions)."""
    keywords: tuple[str, ...]
    group: str
    """The higher-order value the dimension belongs to (paper, App. A.2)."""


@dataclass(frozen=True)
class Space:
    """Dimensions in circumplex order: neighbours are compatible, opposites conflict (paper, App. A.2)."""

    name: str
    dimensions: tuple[Dimension, ...]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.dimensions)

    def opposite(self, name: str) -> str:
        """The dimension across the circle. Raises KeyError for an unknown name."""
        return self.names[(self.index[name] + len(self) // 2) % len(self)]


@functools.cache
def load_space(name: str) -> Space:
    """The bundled space `name` ("schwartz"). Raises ConfigError when there is none of that name."""
    source = importlib.resources.files("visa_proxy.values") / "spaces" / f"{name}.yaml"
    if not source.is_file():
        raise ConfigError([f"unknown value space {name!r}"])
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    return Space(
        name=data["name"],
        dimensions=tuple(Dimension(**{**entry, "keywords": tuple(entry["keywords"])}) for entry in data["dimensions"]),
    )
