"""Targets: an offset moves what was measured, an absolute target ignores it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.values import Dimension, Space, Target, ValueVector, load_space

SCHWARTZ = load_space("schwartz")
VECTORS = st.lists(st.floats(-1, 1), min_size=10, max_size=10).map(lambda components: ValueVector(SCHWARTZ, components))


def of(**components: float) -> ValueVector:
    return ValueVector.of(SCHWARTZ, components)


def test_an_offset_is_added_to_what_was_measured_and_clipped() -> None:
    target = Target("offset", of(stimulation=1, security=-0.5))
    assert target.resolve(of(stimulation=0.5, security=0.25, power=0.75)) == of(stimulation=1, security=-0.25, power=0.75)


def test_a_target_is_absolute() -> None:
    values = of(stimulation=1)
    assert Target("target", values).resolve(of(stimulation=-1, power=1)) is values


@given(VECTORS, VECTORS)
def test_modes(measured: ValueVector, values: ValueVector) -> None:
    assert Target("offset", values).resolve(measured) == measured.offset(values)
    assert Target("target", values).resolve(measured) == values


@given(VECTORS)
def test_a_zero_offset_asks_for_the_answer_as_it_is(measured: ValueVector) -> None:
    assert Target("offset", ValueVector.zero(SCHWARTZ)).resolve(measured) == measured


def test_an_offset_of_another_space_raises() -> None:
    other = Space("other", (Dimension("thrift", "Thrift", "", "", (), ""),))
    with pytest.raises(ValueError, match="different spaces"):
        Target("offset", ValueVector.zero(other)).resolve(of())


def test_targets_are_values() -> None:
    target = Target("offset", of(power=1))
    assert target == Target("offset", of(power=1)) and hash(target) == hash(Target("offset", of(power=1)))
    assert target != Target("target", of(power=1))
    with pytest.raises(FrozenInstanceError):
        setattr(target, "mode", "target")  # noqa: B010  mypy rightly refuses the plain assignment
