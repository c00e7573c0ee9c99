"""Words that became their opposites."""

from __future__ import annotations

import pytest

from visa_proxy.facts.checks import differences


@pytest.mark.parametrize(
    ("original", "rewritten", "lost", "gained"),
    [
        ("Rinse the rice in cold water.", "With care, rinse the rice in hot water.", "opposite:cold", "opposite:hot"),
        ("Prices rise before the sale.", "Prices rise after the sale.", "opposite:before", "opposite:after"),
        ("The lid stays open overnight.", "The lid stays shut overnight, which is a joy.", "opposite:open", "opposite:shut"),
    ],
)
def test_an_opposite_in_the_same_place(original: str, rewritten: str, lost: str, gained: str) -> None:
    assert differences(original, rewritten) == ((lost,), (gained,))


@pytest.mark.parametrize(
    ("original", "rewritten"),
    [
        ("Rinse the rice in cold water.", "Rinse the rice in cool water."),
        ("Use hot water first, then cold water.", "Use hot water first, and then cold water."),
        ("Keep it cold.", "Keep it cold, and you will be glad before long."),
        ("Turn the heat up.", "For a bold start, turn the heat up and enjoy the calm after."),
    ],
)
def test_other_words_are_no_opposites(original: str, rewritten: str) -> None:
    assert differences(original, rewritten) == ((), ())
