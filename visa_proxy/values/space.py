"""A value space: named dimensions in a fixed order."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
    """Dimensions in the order of the file; on a circle neighbours are compatible and opposites conflict (paper, App. A.2)."""

    name: str
    dimensions: tuple[Dimension, ...]
    circle: bool = False
    """The order is that of a circumplex."""
    joined: tuple[Space, ...] = field(default=(), compare=False, repr=False)
    """The spaces that `join` made this one of, in order; empty for a space by itself."""

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.dimensions)

    def opposite(self, name: str) -> str:
        """The dimension across the circle. Raises KeyError for an unknown name, ValueError for a space that is no circle."""
        position = self.index[name]
        if not self.circle:
            raise ValueError(f"the value space {self.name} is no circle: {name} has no opposite")
        return self.names[(position + len(self) // 2) % len(self)]

    def covering(self, names: Iterable[str]) -> Space:
        """The smallest join of the first of the joined spaces and others of them that has all of `names`.

        Whoever names nothing of a further space lives in the first alone, as if there were no other. Raises KeyError for an unknown name.
        """
        wanted = set(names)
        for name in wanted:
            self.index[name]
        if not self.joined:
            return self
        first, *others = self.joined
        return join([first, *(space for space in others if not wanted.isdisjoint(space.names))])


def join(spaces: Sequence[Space]) -> Space:
    """One space of all their dimensions, in order, called "schwartz+tone"; a single space is that space itself.

    Raises ConfigError when two have a dimension, or their own name, in common; ValueError for no space at all.
    """
    parts = tuple(part for space in spaces for part in (space.joined or (space,)))
    if not parts:
        raise ValueError("there is no space to join")
    if len(parts) == 1:
        return parts[0]
    if problems := [*_same_names(parts), *_shared_dimensions(parts)]:
        raise ConfigError(problems)
    return Space("+".join(part.name for part in parts), tuple(d for part in parts for d in part.dimensions), joined=parts)


def _same_names(parts: Sequence[Space]) -> list[str]:
    names = [part.name for part in parts]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    return [f"two value spaces are called {name!r}; their names must differ" for name in dict.fromkeys(twice)]


def _shared_dimensions(parts: Sequence[Space]) -> list[str]:
    owners: dict[str, Space] = {}
    problems: list[str] = []
    for part in parts:
        for name in part.names:
            owner = owners.setdefault(name, part)
            if owner is not part and owner.name != part.name:
                problems.append(
                    f"the value spaces {owner.name!r} and {part.name!r} both have a dimension {name!r}; names must differ"
                )
    return problems
