"""A value vector as a language model is told of it and writes it: definitions, the schema of its levels, and how they are read."""

from __future__ import annotations

import math
from typing import Any, Final

from visa_proxy.values.space import Space
from visa_proxy.values.vector import LEVELS, ValueVector

LEVEL_TOKENS: Final = 24
"""Tokens that one dimension of an answer may take: its name, its level and what stands around them."""
SCALE: Final = """Levels (5-point scale), for every dimension by itself:
1: clearly promoted: the answer actively advocates it, or it is the reason for the advice
0.5: mildly promoted: a hint, a clause, a mild preference
0: neutral: purely factual, or the answer takes no stand on it
-0.5: mildly opposed: played down, made light of
-1: clearly opposed: the answer explicitly objects to it, dismisses it or advises against it"""
"""What the five levels mean (paper, App. C.3)."""


def definitions(space: Space) -> str:
    """A line for each dimension, with its motivational goal and typical signals (paper, App. A.1 and table of App. C)."""
    return "\n".join(f"- {d.name} ({d.title}): {d.goal.rstrip('.')}. {d.signals}".rstrip() for d in space.dimensions)


def levels_schema(space: Space) -> dict[str, Any]:
    """JSON schema of an object with one of the five levels for every dimension."""
    level = {"type": "number", "enum": [int(level) if level.is_integer() else level for level in LEVELS]}
    return {
        "type": "object",
        "properties": dict.fromkeys(space.names, level),
        "required": list(space.names),
        "additionalProperties": False,
    }


def read_levels(space: Space, data: Any) -> ValueVector:
    """The vector that `data` holds, name to number; numbers beyond -1 … 1 are clipped.

    Raises ValueError, quoting nothing of `data`, when a dimension is missing or strange, or one is no finite number.
    """
    if not isinstance(data, dict):
        raise ValueError("no object of levels")
    if missing := [name for name in space.names if name not in data]:
        raise ValueError(f"no level for {', '.join(missing[:3])}")
    if len(data) > len(space):
        raise ValueError(f"{len(data)} levels for {len(space)} dimensions")
    return ValueVector(space, [read_number(name, data[name]) for name in space.names])


def read_number(name: str, found: Any) -> float:
    """`found` as a finite number; raises ValueError naming `name`. JSON's true is no 1."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"no number for {name}")
    return float(found)
