"""What a profile wants: an offset from the answer's own values, or an absolute target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visa_proxy.values.vector import ValueVector


@dataclass(frozen=True)
class Target:
    """`offset`: v* = clip(v + values). `target`: v* = values (paper, section 3, target construction)."""

    mode: Literal["offset", "target"]
    values: ValueVector

    def resolve(self, measured: ValueVector) -> ValueVector:
        """v* for an answer measured at v."""
        return measured.offset(self.values) if self.mode == "offset" else self.values
