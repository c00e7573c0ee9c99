"""The bundled space: the order of the circumplex, opposites, definitions."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from itertools import groupby

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.values import Dimension, load_space

SCHWARTZ = load_space("schwartz")
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
