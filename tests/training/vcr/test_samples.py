"""Filters and triplets, on cases computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.annotator import annotated
from visa_proxy.training.labelled import part_of
from visa_proxy.training.vcr.samples import AnnotatedPair, ambiguities, filtered, samples_of
from visa_proxy.values import LEVELS, load_space

SPACE = load_space("schwartz")


CASES = [
    annotated(0, "a", {"security": 1}, {}),
    annotated(1, "a", {"security": 0}, {"power": 0.5}),
    annotated(2, "b", {"security": 1, "power": 1}, {}),
    annotated(3, "b", {"security": 1, "power": 0.5}, {}),
    annotated(4, "b", {"security": 0.5, "power": 0}, {"security": 0.5, "power": 0.5}),
    annotated(5, "a", {"hedonism": 1}, {"hedonism": 1}, prompt="another q"),
    annotated(6, "c", {"hedonism": 0.5}, {}),
]


def test_ambiguity_is_the_variance_of_an_answer_over_its_pairs() -> None:
    # a: security 1, 0 -> 0.25, and nine dimensions without variance. b: security 1, 1, 0.5 -> 1/18; power 1, 0.5, 0 -> 1/6.
    a, b = 0.25 / 10, (1 / 18 + 1 / 6) / 10
    assert ambiguities(CASES) == pytest.approx([a, a, b, b, b, 0, 0])


def numbers(found: Sequence[AnnotatedPair]) -> list[int]:
    return [int(each.pair.id) for each in found]


@pytest.mark.parametrize(
    ("share", "dropped"),
    [(0, 0), (0.14, 0), (1 / 7, 1), (0.29, 2), (0.43, 3), (0.72, 5), (0.9, 5), (1, 5)],
)
def test_the_most_ambiguous_share_goes_first_and_clear_pairs_stay(share: float, dropped: int) -> None:
    found = filtered(CASES, share, 0)
    assert found.ambiguous == dropped and found.alike == 0
    assert len(found.kept) == 7 - dropped
    gone = set(range(7)) - set(numbers(found.kept))
    assert gone == {0, 1, 2, 3, 4} if dropped == 5 else gone <= {0, 1, 2, 3, 4}
    assert not gone & {2, 3, 4} or gone >= {0, 1}, "a is more ambiguous than b"


def test_pairs_that_hardly_differ_go_after_that() -> None:
    assert numbers(filtered(CASES, 0, 0.5).kept) == [0, 1, 2, 3, 4, 6]
    assert numbers(filtered(CASES, 0, 0.51).kept) == [0, 2, 3]
    found = filtered(CASES, 2 / 7, 0.51)
    assert (numbers(found.kept), found.ambiguous, found.alike) == ([2, 3], 2, 3)


LEVEL = st.sampled_from(LEVELS)
PAIRS = st.lists(
    st.builds(
        lambda i, chosen, v, w: annotated(i, chosen, {"security": v, "power": w}, {"power": v}),
        st.integers(0, 10**6),
        st.sampled_from("abcd"),
        LEVEL,
        LEVEL,
    ),
    max_size=12,
    unique_by=lambda each: each.pair.id,
)


@given(pairs=PAIRS, share=st.floats(0, 1), least=st.floats(0, 3), order=st.randoms())
def test_filters_keep_their_word_whatever_the_order(
    pairs: list[AnnotatedPair], share: float, least: float, order: object
) -> None:
    found = filtered(pairs, share, least)
    assert len(found.kept) + found.ambiguous + found.alike == len(pairs)
    assert found.ambiguous <= share * len(pairs) + 1e-6
    assert all(each.shift >= least - 1e-6 for each in found.kept)
    shuffled = list(pairs)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(numbers(filtered(shuffled, share, least).kept)) == sorted(numbers(found.kept))
    scores = dict(zip(numbers(pairs), ambiguities(pairs), strict=True))
    assert all(0 <= score <= 1 for score in scores.values())
    gone = [scores[n] for n in set(numbers(pairs)) - set(numbers(filtered(pairs, share, 0).kept))]
    stay = [scores[n] for n in numbers(filtered(pairs, share, 0).kept)]
    assert not gone or not stay or min(gone) >= max(stay) - 1e-12


def test_a_pair_makes_a_positive_and_a_negative_sample() -> None:
    each = annotated(9, "the chosen one", {"security": 1, "power": -0.5}, {"security": -1, "hedonism": 0.5})
    positive, negative = samples_of(each)
    assert (positive.source, positive.rewritten, positive.target) == ("other 9", "the chosen one", each.annotation.chosen)
    assert (negative.source, negative.rewritten, negative.target) == ("the chosen one", "other 9", each.annotation.rejected)
    delta = dict(zip(SPACE.names, positive.delta, strict=True))
    assert {name: d for name, d in delta.items() if d} == {"security": 2, "power": -0.5, "hedonism": -0.5}
    assert np.array_equal(negative.delta, -positive.delta)
    assert positive.part == negative.part == part_of("q")
    row = negative.to_dict()
    assert (row["id"], row["kind"], row["prompt"]) == ("9/negative", "negative", "q")
    assert row["delta"]["security"] == -2 and "-0.0" not in str(row)
    assert list(row["target"]) == list(row["delta"]) == list(SPACE.names)
