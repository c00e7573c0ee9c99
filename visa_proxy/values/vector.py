"""A point in a value space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.values.space import Space

LEVELS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""The paper's 5-point scale (App. C.1): clearly opposed, mildly opposed, neutral, mildly promoted, clearly promoted."""


class ValueVector:
    """Immutable vector over a space, every component in [-1, 1]. Components out of range are clipped on construction."""

    __slots__ = ("array", "space")

    def __init__(self, space: Space, components: Iterable[float] | NDArray[np.floating]) -> None:
        """Raises ValueError when the number of components is not the space's, or one is not finite."""
        array = np.asarray(components if isinstance(components, np.ndarray) else list(components), dtype=np.float64)
        if array.shape != (len(space),):
            raise ValueError(f"{space.name} has {len(space)} dimensions, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("value vector components must be finite")
        array = np.clip(array, -1.0, 1.0) + 0.0  # no -0.0: equal vectors have equal hashes
        array.setflags(write=False)
        self.space = space
        self.array = array

    @classmethod
    def zero(cls, space: Space) -> ValueVector:
        return cls(space, np.zeros(len(space)))

    @classmethod
    def of(cls, space: Space, components: Mapping[str, float]) -> ValueVector:
        """From names; the rest is 0. Raises KeyError for an unknown name."""
        array = np.zeros(len(space))
        for name, value in components.items():
            array[space.index[name]] = value
        return cls(space, array)

    def __getitem__(self, name: str) -> float:
        return float(self.array[self.space.index[name]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ValueVector) and self.space == other.space and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.space.name, self.array.tobytes()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value:+.2f}" for name, value in self.to_dict(digits=2).items() if value)
        return f"ValueVector({self.space.name}: {inner or '0'})"

    def offset(self, delta: ValueVector) -> ValueVector:
        """clip(v + Δv) (paper, section 3, target construction)."""
        self._same_space(delta)
        return ValueVector(self.space, self.array + delta.array)

    def bounded(self, bounds: Mapping[str, tuple[float, float]]) -> ValueVector:
        """Each component that `bounds` names, clipped to its (least, greatest). Names of other spaces have no effect."""
        named = {name: limits for name, limits in bounds.items() if name in self.space.index}
        if not named:
            return self
        array = self.array.copy()
        for name, (least, greatest) in named.items():
            array[self.space.index[name]] = min(max(self[name], least), greatest)
        return ValueVector(self.space, array)

    def within(self, space: Space) -> ValueVector:
        """The components of `space`'s dimensions; the vector itself in its own space. Raises KeyError for one that it does not have."""
        if space == self.space:
            return self
        return ValueVector(space, self.array[[self.space.index[name] for name in space.names]])

    def cleared(self, floor: float) -> ValueVector:
        """Components smaller than `floor` are 0: a direction made of such is chance, and cosine would take it for one."""
        return ValueVector(self.space, np.where(np.abs(self.array) < floor, 0.0, self.array))

    def widened(self, space: Space) -> ValueVector:
        """The same in a space that has its dimensions and others, which are 0. Raises KeyError when `space` lacks one of its own."""
        if space == self.space:
            return self
        array = np.zeros(len(space))
        array[[space.index[name] for name in self.space.names]] = self.array
        return ValueVector(space, array)

    def cosine(self, other: ValueVector) -> float:
        """Cosine similarity in [-1, 1] (paper, Eq. 3); 0 when either vector is zero."""
        self._same_space(other)
        norm = float(np.linalg.norm(self.array) * np.linalg.norm(other.array))
        return float(self.array @ other.array) / norm if norm > 1e-12 else 0.0

    def l2(self, other: ValueVector) -> float:
        """Euclidean distance (paper, section 4.2)."""
        self._same_space(other)
        return float(np.linalg.norm(self.array - other.array))

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.array))

    def quantize(self) -> ValueVector:
        """Every component on the nearest of `LEVELS`; ties go away from zero."""
        doubled = self.array * 2
        return ValueVector(self.space, np.sign(doubled) * np.floor(np.abs(doubled) + 0.5) / 2)

    def to_dict(self, digits: int = 4) -> dict[str, float]:
        """Name to component, rounded, in circumplex order."""
        return {name: round(float(value), digits) for name, value in zip(self.space.names, self.array, strict=True)}

    def _same_space(self, other: ValueVector) -> None:
        if self.space != other.space:
            raise ValueError(f"vectors of different spaces: {self.space.name} and {other.space.name}")
