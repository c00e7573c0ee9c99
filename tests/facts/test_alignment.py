"""Which sentences were left out."""

from __future__ import annotations

import pytest

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.facts.alignment import questions

ANSWER = (
    "Rinse the rice in cold water until it runs clear. Bring a pot of water to a boil and add the rice. "
    "If it is still hard, add a little more water."
)


def missing(original: str, rewritten: str) -> list[str]:
    asked = questions(split_sentences(original), split_sentences(rewritten), complete=True)
    return [question.hypothesis for question in asked if question.missing]


def test_a_sentence_whose_words_belong_to_others_was_left_out() -> None:
    shorter = ANSWER.replace(" If it is still hard, add a little more water.", " Make it an exciting adventure.")
    assert missing(ANSWER, f"For the thrill of it, {shorter[0].lower()}{shorter[1:]}") == [
        "If it is still hard, add a little more water."
    ]


@pytest.mark.parametrize(
    "rewritten",
    [
        ANSWER.replace("Rinse", "With care, rinse").replace("If it", "And if it"),
        "Until it runs clear, rinse the rice in cold water, bring a pot of water to a boil and add the rice. "
        "Add a little more water if it is still hard.",
        ANSWER + " Make it an exciting adventure.",
        "Something else entirely.",
    ],
)
def test_told_in_another_way_or_not_at_all_is_for_the_model(rewritten: str) -> None:
    assert missing(ANSWER, rewritten) == []


def test_what_was_added_has_no_counterpart_to_miss() -> None:
    added = ANSWER + " Add a little joy to the rice."
    assert not any(question.missing for question in questions(split_sentences(added), split_sentences(ANSWER)))
