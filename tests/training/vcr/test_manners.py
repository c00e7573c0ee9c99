"""Adverbs that express values, and where they go."""

from __future__ import annotations

import pytest

from visa_proxy.training.vcr.manners import manners, woven
from visa_proxy.values import load_space


def test_every_value_has_manners_at_every_level() -> None:
    assert set(manners()) == {(name, level) for name in load_space("schwartz").names for level in (-1.0, -0.5, 0.5, 1.0)}
    assert all(len(set(found)) >= 2 for found in manners().values())


@pytest.mark.parametrize(
    ("sentence", "manner", "expected"),
    [
        ("Use a large pan.", "carefully", "Carefully use a large pan."),
        ("Use a large pan.", "in your own way", "In your own way, use a large pan."),
        ("Add ⟦1⟧ of sugar.", "blissfully", "Blissfully add ⟦1⟧ of sugar."),
        ("Later you can use oil.", "safely", "Later you can safely use oil."),
        ("We should talk first.", "with full authority", "We should, with full authority, talk first."),
    ],
)
def test_where_they_go(sentence: str, manner: str, expected: str) -> None:
    assert woven(sentence, manner) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "Plan Your Route: look at it.",
        "It can cause cancer.",
        "You can not use oil.",
        "You can also use oil.",
        "You should be early.",
        "The pan is large.",
    ],
)
def test_where_nobody_does_anything_there_is_no_manner(sentence: str) -> None:
    assert woven(sentence, "carefully") is None
