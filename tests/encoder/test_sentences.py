"""Cutting texts into sentences and sentences into clauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.encoder.sentences import split_sentences

PIECES = st.sampled_from(
    "word Word e.g. Dr. A. 3.5 … ? ! . , ; : – - * 1. # > ``` ~~~ ⟦1⟧ “Hi.” (No.) Žluť 東京。 🎈".split() + ["\n", " ", "\r\n"]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join), st.lists(PIECES, max_size=25).map(" ".join))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four…  Five.", ["One.", "Two!", "Three?", "Four…", "Five."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("Wait ... what? Go.", ["Wait ... what?", "Go."]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("(It rains.) Stay in.", ["(It rains.)", "Stay in."]),
        ("**Stop.** Think.", ["**Stop.**", "Think."]),
        ("“Ça va.” Élan vital. Österreich ruft.", ["“Ça va.”", "Élan vital.", "Österreich ruft."]),
        ("Привет. Как дела? Хорошо!", ["Привет.", "Как дела?", "Хорошо!"]),
        ("Bring 2 L of water. 3 is too much.", ["Bring 2 L of water.", "3 is too much."]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    "text",
    [
        "Bring fruit, e.g. Apples, for the day.",
        "Use the back door, i.e. The red one.",
        "Ask Dr. Smith or Prof. Jones.",
        "Meet Mr. and Mrs. Brown at St. Mary.",
        "J. R. R. Tolkien wrote it.",
        "See Fig. 3 and No. 5.",
        "It opens at 9 a.m. Monday to Friday.",
        "Dogs vs. Cats is old.",
        "Version 3.5 is out.",
        "See example.com for more.",
        "He shops at yahoo! every day.",
        "Acme Inc. Ltd. is one firm.",
    ],
)
def test_what_ends_no_sentence(text: str) -> None:
    assert split_sentences(text) == [text]


def test_a_word_that_ends_like_an_abbreviation_ends_its_sentence() -> None:
    assert split_sentences("The bus was almost. Then it came.") == ["The bus was almost.", "Then it came."]
    assert split_sentences("Join the al-Din. Go on.") == ["Join the al-Din.", "Go on."]


@pytest.mark.parametrize("marker", ["-", "*", "•", "+", ">", "#", "######", "1.", "12)", "  -", "\t*"])
def test_list_markers_are_dropped(marker: str) -> None:
    assert split_sentences(f"{marker} Drink water. Rest.\n{marker} Sleep") == ["Drink water.", "Rest.", "Sleep"]


@pytest.mark.parametrize("text", ["-5 degrees", "#tag first", "*Now* go", "3.5 km on foot", "1234. Item"])
def test_what_only_looks_like_a_marker_stays(text: str) -> None:
    assert " ".join(split_sentences(text)) == text


@pytest.mark.parametrize(
    "block",
    [
        "```\nRun. Stop.\n```",
        "```python\nprint('A. B.')\n```",
        "~~~\nA. B.\n~~~",
        "````\n```\nA. B.\n```\n````",
        "  ```\n  A. B.\n  ```",
    ],
)
def test_fenced_code_is_left_out(block: str) -> None:
    assert split_sentences(f"Do this.\n{block}\nThen rest.") == ["Do this.", "Then rest."]


def test_an_open_fence_runs_to_the_end() -> None:
    assert split_sentences("Do this.\n```\nA. B.\n\nC.") == ["Do this."]


def test_two_fences_keep_what_is_between() -> None:
    assert split_sentences("```\nA.\n```\nBetween.\n```\nB.\n```") == ["Between."]


def test_code_in_a_line_is_no_fence() -> None:
    assert split_sentences("Call ```f()``` now. Wait.") == ["Call ```f()``` now.", "Wait."]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \t\n"])
def test_no_punctuation_gives_a_sentence_a_line(end: str) -> None:
    assert split_sentences(f"take water{end}rest often{end}go home") == ["take water", "rest often", "go home"]


@pytest.mark.parametrize("text", ["", " \n\t\n", "...", "---\n***", "?! …", "🎈"])
def test_nothing_to_read(text: str) -> None:
    assert split_sentences(text) == []


def test_placeholders_stay_whole() -> None:
    assert split_sentences("See ⟦1⟧. ⟦2⟧ is next. Use ⟦3⟧ and ⟦12⟧") == ["See ⟦1⟧.", "⟦2⟧ is next.", "Use ⟦3⟧ and ⟦12⟧"]
    assert split_sentences("1. ⟦1⟧: go.\n⟦2⟧") == ["⟦1⟧: go.", "⟦2⟧"]


@given(TEXTS)
def test_sentences_are_parts_of_the_text_in_order(text: str) -> None:
    place = 0
    for sentence in split_sentences(text):
        assert sentence == sentence.strip() and "\n" not in sentence
        assert any(character.isalnum() for character in sentence)
        place = text.index(sentence, place) + len(sentence)


@given(st.lists(PIECES.filter(lambda piece: piece.isalpha() or piece == "⟦1⟧"), min_size=1, max_size=20))
def test_without_fences_no_word_is_lost(words: list[str]) -> None:
    text = ". ".join(words)
    assert " ".join(split_sentences(text)).split() == text.split()


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["e.g. ", "ok then. ", "A. ", "`", "~", ".) ", "!", ". "])
def test_a_long_line_takes_time_in_proportion(piece: str) -> None:
    """A hundred thousand characters in which nothing, or everything, ends a sentence."""
    text = piece * (100_000 // len(piece))
    assert "".join("".join(split_sentences(text)).split()) in ("".join(text.split()), "")
