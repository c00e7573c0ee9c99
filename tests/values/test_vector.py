"""Value vectors: arithmetic, distances, the 5-point scale, immutability."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.values import LEVELS, Dimension, Space, ValueVector, join, load_space

SCHWARTZ = load_space("schwartz")
TONE = load_space("tone")
BOTH = join([SCHWARTZ, TONE])
OTHER = Space("other", tuple(Dimension(name, name, "", "", (), "") for name in SCHWARTZ.names))
SIZE = len(SCHWARTZ)

LEVEL = st.floats(-1, 1, allow_subnormal=False)
VECTORS = st.lists(LEVEL, min_size=SIZE, max_size=SIZE).map(lambda components: ValueVector(SCHWARTZ, components))
WILD = st.lists(st.floats(-1e6, 1e6), min_size=SIZE, max_size=SIZE)


def of(**components: float) -> ValueVector:
    return ValueVector.of(SCHWARTZ, components)


def first(*components: float) -> ValueVector:
    return ValueVector(SCHWARTZ, [*components, *[0.0] * (SIZE - len(components))])


def test_construction_clips() -> None:
    assert first(2, -3, 0.4, 1e300, -1).array[:5].tolist() == [1, -1, 0.4, 1, -1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_components_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        first(bad)


@pytest.mark.parametrize("count", [0, 1, SIZE - 1, SIZE + 1])
def test_the_number_of_components_is_the_spaces(count: int) -> None:
    with pytest.raises(ValueError, match="10 dimensions"):
        ValueVector(SCHWARTZ, [0.0] * count)


def test_a_matrix_is_no_vector() -> None:
    with pytest.raises(ValueError, match="shape"):
        ValueVector(SCHWARTZ, np.zeros((1, SIZE)))


def test_of_fills_the_rest_with_zeros() -> None:
    vector = of(security=0.5, self_direction=-1)
    assert (vector["security"], vector["self_direction"], vector["power"]) == (0.5, -1.0, 0.0)
    assert np.count_nonzero(vector.array) == 2
    assert ValueVector.of(SCHWARTZ, {}) == ValueVector.zero(SCHWARTZ)


@pytest.mark.parametrize("name", ["", "Security", "self-direction", "courage"])
def test_unknown_names_raise(name: str) -> None:
    with pytest.raises(KeyError):
        ValueVector.of(SCHWARTZ, {name: 1.0})
    with pytest.raises(KeyError):
        ValueVector.zero(SCHWARTZ)[name]


def test_the_components_cannot_be_written() -> None:
    vector = of(power=0.5)
    with pytest.raises(ValueError, match="read-only"):
        vector.array[0] = 1.0


def test_a_vector_does_not_share_memory_with_what_it_was_made_of() -> None:
    source = np.zeros(SIZE)
    vector = ValueVector(SCHWARTZ, source)
    source[0] = 1.0
    assert vector == ValueVector.zero(SCHWARTZ)
    assert source.flags.writeable, "the caller's array stays the caller's"


def test_a_vector_takes_no_other_attribute() -> None:
    with pytest.raises(AttributeError):
        setattr(of(), "label", "x")  # noqa: B010  mypy rightly refuses the plain assignment


def test_offset_adds_and_clips() -> None:
    moved = of(power=0.75, security=-0.75, hedonism=0.25).offset(of(power=0.5, security=-0.5, hedonism=-0.5))
    assert (moved["power"], moved["security"], moved["hedonism"]) == (1.0, -1.0, -0.25)


@given(VECTORS, VECTORS)
def test_offset_stays_in_range_and_changes_neither_side(a: ValueVector, b: ValueVector) -> None:
    before = (a.array.copy(), b.array.copy())
    assert np.array_equal(a.offset(b).array, np.clip(before[0] + before[1], -1, 1))
    assert np.array_equal(a.array, before[0]) and np.array_equal(b.array, before[1])
    assert a.offset(b) == b.offset(a)
    assert a.offset(ValueVector.zero(SCHWARTZ)) == a


def test_cosine_by_hand() -> None:
    assert first(1).cosine(first(0, 1)) == 0.0
    assert first(1).cosine(first(0.25)) == pytest.approx(1.0)
    assert first(1).cosine(first(-0.25)) == pytest.approx(-1.0)
    assert first(1).cosine(first(0.5, 0.5)) == pytest.approx(math.sqrt(0.5))


def test_cosine_with_zero_is_zero() -> None:
    zero = ValueVector.zero(SCHWARTZ)
    assert zero.cosine(first(1)) == first(1).cosine(zero) == zero.cosine(zero) == 0.0


@given(VECTORS, VECTORS)
def test_cosine_is_symmetric_and_bounded(a: ValueVector, b: ValueVector) -> None:
    assert a.cosine(b) == pytest.approx(b.cosine(a), abs=1e-9)
    assert abs(a.cosine(b)) <= 1 + 1e-9
    assert a.cosine(a) == pytest.approx(1.0 if a.norm > 1e-5 else a.cosine(a))


def test_l2_and_norm_by_hand() -> None:
    assert first(1).l2(first(0, 1)) == pytest.approx(math.sqrt(2))
    assert first(0.6, 0.8).norm == pytest.approx(1.0)
    assert ValueVector.zero(SCHWARTZ).norm == 0.0


@given(VECTORS, VECTORS, VECTORS)
def test_l2_is_a_distance(a: ValueVector, b: ValueVector, c: ValueVector) -> None:
    assert a.l2(a) == 0.0
    assert a.l2(b) == pytest.approx(b.l2(a))
    assert a.l2(c) <= a.l2(b) + b.l2(c) + 1e-9
    assert a.l2(ValueVector.zero(SCHWARTZ)) == pytest.approx(a.norm)


def test_vectors_of_different_spaces_do_not_mix() -> None:
    here, there = ValueVector.zero(SCHWARTZ), ValueVector.zero(OTHER)
    assert here != there
    for operation in (here.offset, here.cosine, here.l2):
        with pytest.raises(ValueError, match="schwartz and other"):
            operation(there)


@pytest.mark.parametrize(
    ("component", "level"),
    [(0.0, 0.0), (0.24, 0.0), (0.26, 0.5), (0.5, 0.5), (0.74, 0.5), (0.76, 1.0), (1.0, 1.0)],
)
def test_quantize_takes_the_nearest_level(component: float, level: float) -> None:
    assert first(component, -component).quantize() == first(level, -level)


@pytest.mark.parametrize(("component", "level"), [(0.25, 0.5), (0.75, 1.0)])
def test_ties_go_away_from_zero(component: float, level: float) -> None:
    assert first(component, -component).quantize() == first(level, -level)


@given(VECTORS)
def test_quantize_is_idempotent_and_near(vector: ValueVector) -> None:
    quantized = vector.quantize()
    assert set(quantized.array.tolist()) <= set(LEVELS)
    assert quantized.quantize() == quantized
    assert np.abs(quantized.array - vector.array).max() <= 0.25
    assert ValueVector(SCHWARTZ, -vector.array).quantize() == ValueVector(SCHWARTZ, -quantized.array)


@given(WILD)
def test_every_finite_input_ends_in_range(components: list[float]) -> None:
    vector = ValueVector(SCHWARTZ, components)
    assert np.abs(vector.array).max() <= 1
    assert list(vector.to_dict()) == list(SCHWARTZ.names)


@given(VECTORS)
def test_to_dict_goes_there_and_back(vector: ValueVector) -> None:
    assert ValueVector.of(SCHWARTZ, vector.to_dict(digits=400)) == vector
    assert ValueVector.of(SCHWARTZ, vector.to_dict()).l2(vector) < 1e-3


def test_to_dict_rounds() -> None:
    assert of(power=0.123456).to_dict()["power"] == 0.1235
    assert of(power=0.123456).to_dict(digits=1)["power"] == 0.1


@given(VECTORS)
def test_equal_vectors_have_equal_hashes(vector: ValueVector) -> None:
    twin = ValueVector(SCHWARTZ, vector.array.tolist())
    assert vector == twin and hash(vector) == hash(twin) and len({vector, twin}) == 1


def test_negative_zero_hashes_like_zero() -> None:
    quantized = first(-0.1).quantize()
    assert quantized == ValueVector.zero(SCHWARTZ)
    assert hash(quantized) == hash(ValueVector.zero(SCHWARTZ))


def test_a_vector_equals_no_other_type() -> None:
    assert ValueVector.zero(SCHWARTZ) != [0.0] * SIZE
    assert ValueVector.zero(SCHWARTZ) != None  # noqa: E711  the comparison is what is tested


def test_repr_names_what_is_not_zero() -> None:
    assert repr(of(security=-0.5, power=1)) == "ValueVector(schwartz: security=-0.50, power=+1.00)"
    assert repr(of()) == "ValueVector(schwartz: 0)"


@given(VECTORS)
def test_a_wider_space_adds_zeros_and_a_narrower_one_takes_components_away(vector: ValueVector) -> None:
    wide = vector.widened(BOTH)
    assert wide.space is BOTH
    assert wide.array.tolist() == [*vector.array, *[0.0] * len(TONE)]
    assert wide.within(SCHWARTZ) == vector
    assert wide.within(TONE) == ValueVector.zero(TONE)
    assert vector.within(SCHWARTZ) is vector.widened(SCHWARTZ) is vector


def test_bounds_clip_what_they_name() -> None:
    vector = of(power=1, security=-1, hedonism=0.5)
    assert vector.bounded({"power": (-1, 0.5), "security": (0, 1), "hedonism": (0, 1)}) == of(power=0.5, hedonism=0.5)
    assert vector.bounded({"warmth": (0, 0)}) is vector.bounded({}) is vector


def test_components_go_by_name_whatever_the_order() -> None:
    turned = join([TONE, SCHWARTZ])
    vector = ValueVector.of(BOTH, {"power": 0.5, "warmth": -1})
    assert vector.within(turned) == ValueVector.of(turned, {"power": 0.5, "warmth": -1}) == vector.widened(turned)
    assert vector.within(TONE) == ValueVector.of(TONE, {"warmth": -1})


def test_a_space_that_lacks_a_dimension() -> None:
    with pytest.raises(KeyError):
        ValueVector.zero(SCHWARTZ).within(BOTH)
    with pytest.raises(KeyError):
        ValueVector.zero(BOTH).widened(SCHWARTZ)


def test_what_is_within_the_noise_is_nothing() -> None:
    space = load_space("schwartz")
    measured = ValueVector.of(space, {"security": 0.02, "power": -0.04, "tradition": -0.05, "hedonism": 0.3})
    assert measured.cleared(0.05) == ValueVector.of(space, {"tradition": -0.05, "hedonism": 0.3})
