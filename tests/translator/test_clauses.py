"""What cuts an instruction, and what does not."""

from __future__ import annotations

import pytest

from visa_proxy.translator.clauses import split_clauses


@pytest.mark.parametrize(
    ("instruction", "clauses"),
    [
        ("Safer, but less bossy.", ["Safer", "less bossy."]),
        ("No rank, no clout, no prestige.", ["No rank", "no clout", "no prestige."]),
        ("Make it kinder and a bit more careful.", ["Make it kinder", "a bit more careful."]),
        ("Less caution, please.", ["Less caution, please."]),
        ("Tone down rules, order and caution.", ["Tone down rules, order and caution."]),
        ("I want it bold. Not reckless!", ["I want it bold.", "Not reckless!"]),
        ("", []),
        ("; , .", []),
    ],
)
def test_split_clauses(instruction: str, clauses: list[str]) -> None:
    assert split_clauses(instruction) == clauses
