"""Cutting an instruction into the requests it joins."""

from __future__ import annotations

import re
from typing import Final

from visa_proxy.encoder.sentences import split_sentences

_GRADE: Final = r"(?:more|less|fewer|no|not|far|much|slightly|a (?:bit|little|touch|hint))\b"
_JOINT: Final = re.compile(
    rf"\s*;\s+|,?\s+(?:but|plus|yet|while also)\b:?\s+|,\s+and\s+|,?\s+and\s+(?={_GRADE})|,\s+(?={_GRADE})",
    re.IGNORECASE,
)


def split_clauses(instruction: str) -> list[str]:
    """The parts whose offsets add up: "Safer, but less bossy." -> ["Safer", "less bossy."].

    Only joints that start a request of their own cut: a negation reaches across plain commas and "and".
    """
    parts = [part.strip() for sentence in split_sentences(instruction) for part in _JOINT.split(sentence)]
    return [part for part in parts if any(character.isalpha() for character in part)]
