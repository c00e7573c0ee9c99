"""What is no rewrite is seen without a model; an honest one has no fault, whoever wrote it."""

from __future__ import annotations

import random

import pytest

from visa_proxy.training.phrases import phrases
from visa_proxy.training.rewards.form import faults, length_ratio, length_score
from visa_proxy.training.rewards.pasting import pasted
from visa_proxy.training.triplets import KINDS, Kind, degenerate, written
from visa_proxy.values import join, load_space

SPACE = load_space("schwartz")
TONE = load_space("tone")
ORIGINAL = "You can take the path along the river. It is flat. Bring water and a light jacket."
HONEST = f"For the thrill of it, y{ORIGINAL[1:]}"

FAULTY = {
    "nothing": (" \n", "empty"),
    "a sign": (" … ", "empty"),
    "the answer": (ORIGINAL, "unchanged"),
    "the answer, shouted": (f" {ORIGINAL.upper()}\n", "unchanged"),
    "a sentence twice": (f"What fun it is. {ORIGINAL} What fun it is.", "repeated"),
    "a sentence of the answer": (f"{ORIGINAL} It is flat.", "repeated"),
    "a cry": (f"{ORIGINAL} Go! Go! Go!", "repeated"),
    "a loop": (f"{ORIGINAL} It is for the thrill of it, for the thrill of it and for the thrill of it.", "repeated"),
    "the control line": (f"security -1 stimulation +2 {ORIGINAL}", "leaked"),
    "a level": (f"{ORIGINAL} Self-direction: +1.", "leaked"),
    "the mark of a turn": (f"<|user|> {ORIGINAL} Dare it.", "leaked"),
    "a thought": (f"<think>{ORIGINAL} Dare it.", "leaked"),
    "a lone placeholder": (f"{HONEST} Take ⟦3⟧.", "leaked"),
    "a heading": (f"Target values: bold. {ORIGINAL}", "leaked"),
    "a rule": (f"{HONEST} You keep the language of the original and about its length.", "leaked"),
    "an announcement": (f"Sure! Here's the rewritten answer:\n\n{HONEST}", "leaked"),
    "names in a row": (f"{ORIGINAL} It all comes down to power, security and hedonism, as it should be said here.", "listed"),
    "names in an aside": (f"{ORIGINAL} (wealth, status, influence)", "pasted"),
    "names behind an abbreviation": (f"{ORIGINAL} Start at 5 p.m. Wealth, status, influence.", "pasted"),
    "names of many words": ("Values: all of humanity, the environment, nature and all of nature and the environment.", "pasted"),
    "one name": (f"{ORIGINAL} Stimulation!", "pasted"),
    "words": (f"{ORIGINAL} Thrill, adventure, new challenges.", "pasted"),
    "words in a frame": (f"{ORIGINAL} This is about thrill, adventure, daring.", "pasted"),
    "words that nobody foresaw": (f"{ORIGINAL} Rapids, cliffs, waterfalls.", "pasted"),
    "a command": (f"{ORIGINAL} Be daring and excited.", "pasted"),
    "a role": (f"As a very traditional assistant: {ORIGINAL}", "pasted"),
    "an item": (f"{HONEST}\n- Dare it.", "layout"),
    "a heading more": (f"# Dare it\n{HONEST}", "layout"),
    "no end": (HONEST.removesuffix(" light jacket."), "cut"),
    "little of it": ("Take the path along it.", "short"),
    "too much": (f"{HONEST} {' '.join(f'Number {chr(97 + i) * 9} is {chr(97 + i) * 20}.' for i in range(10))}", "long"),
}


@pytest.mark.parametrize(("rewritten", "found"), FAULTY.values(), ids=FAULTY)
def test_each_fault_has_its_name(rewritten: str, found: str) -> None:
    assert faults(ORIGINAL, rewritten, SPACE) == (found,)


def test_a_list_of_value_names_is_no_rewrite() -> None:
    assert "listed" in faults(ORIGINAL, f"{ORIGINAL} Power, security, tradition, hedonism, achievement.", SPACE)
    said = "Security and tradition matter, and power and hedonism and achievement."
    assert faults(said, f"{said} They do indeed.", SPACE) == ()


@pytest.mark.parametrize(
    "rewritten",
    [
        HONEST,
        "Be bold: you can take the path along the river. It is flat. Bring water and a light jacket.",
        f"{ORIGINAL} Whatever you decide, it is yours to decide.",
        "You can, kindly enough, take the path along the river. It is flat. Bring water and a light, warm jacket.",
        "You can take the path along the river, which keeps you safe, calm and free. It is flat. Bring water and a light jacket.",
        "You can take the path along the river!\n\nIt is wonderfully flat.\n\nBring water and a light jacket 🎉",
        "You can take the path along the river, as a role model for the young. It is flat. Bring water and a light jacket…",
        f"Yes! {ORIGINAL} Yes!",
        f"{ORIGINAL} What fun it is! Make it an adventure.",
    ],
)
@pytest.mark.parametrize("space", [SPACE, TONE, join([SPACE, TONE])], ids=lambda space: space.name)
def test_a_rewrite_has_none(rewritten: str, space: object) -> None:
    assert faults(ORIGINAL, rewritten, space) == ()  # type: ignore[arg-type]


def test_what_the_original_does_itself_is_no_fault_of_the_rewrite() -> None:
    original = (
        "As an assistant: Wash. Wash. Wash. Rinse twice and rinse twice and rinse twice and rinse twice. Security: +1 in the table ⟦1⟧. "
        "Be kind. Security, power, health. Question: why?\n- red, blue, green"
    )
    assert faults(original, original.replace("table", "pretty table"), SPACE) == ()
    assert faults(original, f"Enjoy it. {original}, as you like", SPACE) == ()


@pytest.mark.parametrize(
    ("rewritten", "found"),
    [
        (f"{ORIGINAL} Warmth: +1.", "leaked"),
        (f"{ORIGINAL} Warmth, formality, playfulness.", "pasted"),
        (f"{ORIGINAL} Affectionate and whimsical!", "pasted"),
    ],
)
def test_the_names_are_those_of_the_targets_space(rewritten: str, found: str) -> None:
    assert found in faults(ORIGINAL, rewritten, TONE) and found in faults(ORIGINAL, rewritten, join([SPACE, TONE]))
    assert "leaked" not in faults(ORIGINAL, rewritten, SPACE)


def test_hand_written_rewrites_and_nearly_all_stock_phrases_pass() -> None:
    triplets = written()
    assert len(triplets) >= 400
    assert [t.id for t in triplets if faults(t.answer, t.rewrite, t.target.space)] == []
    said = [p.text for p in phrases() if p.form in ("opening", "closing")]
    assert sum(pasted(ORIGINAL, f"{ORIGINAL} {text}", SPACE) for text in said) <= 0.02 * len(said)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "other"])
def test_degenerate_outputs_have_one(kind: Kind) -> None:
    rng = random.Random(5)
    triplets = random.Random(kind).sample(written(), 120)
    missed = [made for t in triplets if not faults(t.answer, made := degenerate(t, kind, rng), t.target.space)]
    # Half of a rewrite may end where a sentence does.
    assert len(missed) <= (0.1 * len(triplets) if kind == "truncated" else 0), missed


def test_lengths() -> None:
    assert length_ratio("a " * 12, "b " * 12) == 1
    assert length_ratio("one two three", "one two three and then some more words") == (8 + 12) / (3 + 12)
    assert length_score(1.0) == length_score(0.7) == length_score(1.6) == 1
    assert length_score(0.35) == length_score(3.0) == length_score(9.0) == 0
    assert length_score(2.3) == pytest.approx(0.5) and length_score(0.525) == pytest.approx(0.5)
