"""Which of an answer's verbatim spans a text still has."""

from __future__ import annotations

import re
from collections.abc import Sequence


def kept(spans: Sequence[str], text: str) -> int:
    """How many of `spans` stand in `text`, whole and in their order.

    Of the spans found in `text` those count that belong to the longest common sequence: one that was dropped costs itself alone, and one
    that two texts have in another place than the other costs one of them.
    """
    if not spans:
        return 0
    longest = sorted(set(spans), key=lambda span: (-len(span), span))
    found = re.compile("|".join(rf"(?<!\w){re.escape(span)}(?!\w)" for span in longest)).findall(text)
    return _common(spans, found)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = row[:]
        for i, other in enumerate(second):
            row[i + 1] = before[i] + 1 if one == other else max(before[i + 1], row[i])
    return row[-1]
