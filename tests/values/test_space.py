"""Spaces: the order of the circumplex, opposites, definitions; several joined to one."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from itertools import groupby

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.values import Dimension, Space, join, load_space

SCHWARTZ = load_space("schwartz")
TONE = load_space("tone")
SOCIETY = load_space("inglehart-welzel")
CIRCUMPLEX = (
    "universalism benevolence tradition conformity security power achievement hedonism stimulation self_direction".split()
)


def test_circumplex_order() -> None:
    assert SCHWARTZ.name == "schwartz"
    assert list(SCHWARTZ.names) == CIRCUMPLEX
    assert len(SCHWARTZ) == 10
    assert SCHWARTZ.index == {name: i for i, name in enumerate(CIRCUMPLEX)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("universalism", "power"),
        ("benevolence", "achievement"),
        ("tradition", "hedonism"),
        ("conformity", "stimulation"),
        ("security", "self_direction"),
    ],
)
def test_opposites(one: str, other: str) -> None:
    assert SCHWARTZ.opposite(one) == other
    assert SCHWARTZ.opposite(other) == one


def test_opposite_of_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        SCHWARTZ.opposite("courage")


def test_only_a_circle_has_opposites() -> None:
    assert SCHWARTZ.circle and not TONE.circle and not join([SCHWARTZ, TONE]).circle
    with pytest.raises(ValueError, match="tone is no circle"):
        TONE.opposite("warmth")
    with pytest.raises(KeyError):
        TONE.opposite("courage")


def test_the_higher_order_values_are_arcs_of_the_circle() -> None:
    arcs = [group for group, _ in groupby(dimension.group for dimension in SCHWARTZ.dimensions)]
    assert arcs == ["self_transcendence", "conservation", "self_enhancement", "openness_to_change"]


@pytest.mark.parametrize("dimension", SCHWARTZ.dimensions, ids=lambda dimension: dimension.name)
def test_every_dimension_is_defined(dimension: Dimension) -> None:
    assert dimension.title.lower().replace("-", "_") == dimension.name
    assert dimension.goal and not dimension.goal.endswith("."), "the prompt adds the full stop"
    assert dimension.signals.endswith(".")
    assert len(dimension.keywords) == 2 and isinstance(dimension.keywords, tuple)


def test_definitions_differ() -> None:
    for field in ("name", "title", "goal", "signals", "keywords"):
        assert len({getattr(dimension, field) for dimension in SCHWARTZ.dimensions}) == 10


def test_a_space_is_loaded_once_and_cannot_be_changed() -> None:
    assert load_space("schwartz") is SCHWARTZ
    with pytest.raises(FrozenInstanceError):
        setattr(SCHWARTZ, "name", "mine")  # noqa: B010  mypy rightly refuses the plain assignment
    with pytest.raises(FrozenInstanceError):
        setattr(SCHWARTZ.dimensions[0], "goal", "")  # noqa: B010


@pytest.mark.parametrize("name", ["", "Schwartz", "rokeach", "../schwartz"])
def test_unknown_spaces(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown value space") as caught:
        load_space(name)
    assert repr(name) in str(caught.value)


def test_joined_spaces_are_one_space_in_order() -> None:
    joined = join([SCHWARTZ, TONE, SOCIETY])
    assert joined.name == "schwartz+tone+inglehart-welzel"
    assert joined.names == SCHWARTZ.names + TONE.names + SOCIETY.names
    assert joined.dimensions[10] is TONE.dimensions[0]
    assert joined.index["formality"] == 10 and len(joined) == 19
    assert joined.joined == (SCHWARTZ, TONE, SOCIETY)
    assert joined == join([join([SCHWARTZ, TONE]), SOCIETY]) and join([SCHWARTZ, TONE]) != join([TONE, SCHWARTZ])


def test_one_space_joined_is_itself() -> None:
    assert join([TONE]) is TONE
    with pytest.raises(ValueError, match="no space"):
        join([])


def space(name: str, *names: str) -> Space:
    return Space(name, tuple(Dimension(each, each, each, "", (), "") for each in names))


def test_joined_spaces_share_neither_a_dimension_nor_a_name() -> None:
    with pytest.raises(ConfigError) as caught:
        join([SCHWARTZ, TONE, space("brand", "warmth", "wit", "power")])
    assert caught.value.problems == [
        "the value spaces 'tone' and 'brand' both have a dimension 'warmth'; names must differ",
        "the value spaces 'schwartz' and 'brand' both have a dimension 'power'; names must differ",
    ]
    with pytest.raises(ConfigError) as caught:
        join([SCHWARTZ, TONE, TONE])
    assert caught.value.problems == ["two value spaces are called 'tone'; their names must differ"]


def test_covering_is_the_smallest_join_in_order_with_the_first_space_always_in_it() -> None:
    joined = join([SCHWARTZ, TONE, SOCIETY])
    assert joined.covering(()) is joined.covering(["power"]) is SCHWARTZ
    assert joined.covering(["warmth"]) == join([SCHWARTZ, TONE])
    assert joined.covering(["individualism", "power"]) == join([SCHWARTZ, SOCIETY])
    assert joined.covering(["individualism", "warmth"]) == joined
    assert TONE.covering(["warmth"]) is TONE.covering(()) is TONE
    for each in (joined, TONE):
        with pytest.raises(KeyError):
            each.covering(["courage"])
