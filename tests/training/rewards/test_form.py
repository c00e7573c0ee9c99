"""What is no rewrite is seen without a model; an honest one has no fault."""

from __future__ import annotations

import pytest

from visa_proxy.training.phrases import phrases
from visa_proxy.training.rewards.form import faults, length_ratio, length_score
from visa_proxy.training.rewards.pasting import pasted
from visa_proxy.training.triplets import written

ORIGINAL = "You can take the path along the river. It is flat. Bring water and a light jacket."


@pytest.mark.parametrize(
    ("rewritten", "found"),
    [
        ("", ("empty",)),
        (" … ", ("empty",)),
        (ORIGINAL, ("unchanged",)),
        (f" {ORIGINAL.upper()}\n", ("unchanged",)),
        (f"{ORIGINAL} It is flat.", ("repeated",)),
        (f"{ORIGINAL} Dare it now or dare it now or dare it now or dare it now or never", ("repeated",)),
        (f"security -1 stimulation +2 {ORIGINAL}", ("leaked",)),
        (f"{ORIGINAL} Self-direction: +1.", ("leaked",)),
        (f"<|user|> {ORIGINAL} Dare it.", ("leaked",)),
        (f"{ORIGINAL} ⟦1⟧", ("leaked",)),
        (f"Target values: bold. {ORIGINAL}", ("leaked",)),
        (f"{ORIGINAL} (wealth, status, influence)", ("pasted",)),
        (f"{ORIGINAL} Be kind and gentle.", ("pasted",)),
        (f"As a very traditional assistant: {ORIGINAL}", ("pasted",)),
        (f"{ORIGINAL}\nDare it.", ("layout",)),
    ],
)
def test_each_fault_has_its_name(rewritten: str, found: tuple[str, ...]) -> None:
    assert faults(ORIGINAL, rewritten) == found


def test_a_list_of_value_names_is_no_rewrite() -> None:
    assert "listed" in faults(ORIGINAL, f"{ORIGINAL} Power, security, tradition, hedonism, achievement.")
    said = "Security and tradition matter, and power and hedonism and achievement."
    assert "listed" not in faults(said, f"{said} They do indeed.")


@pytest.mark.parametrize(
    "rewritten",
    [
        "Be bold: you can take the path along the river. It is flat. Bring water and a light jacket.",
        f"{ORIGINAL} Whatever you decide, it is yours to decide.",
        "You can, kindly enough, take the path along the river. It is flat. Bring water and a light, warm jacket.",
    ],
)
def test_a_rewrite_has_none(rewritten: str) -> None:
    assert faults(ORIGINAL, rewritten) == ()


def test_what_the_original_does_itself_is_no_fault_of_the_rewrite() -> None:
    original = (
        "Wash. Wash. Wash. Rinse twice and rinse twice and rinse twice and rinse twice. Security: +1 in the table. Be kind."
    )
    assert faults(original, original.replace("table", "pretty table")) == ()


def test_hand_written_rewrites_and_nearly_all_stock_phrases_pass() -> None:
    triplets = written()
    assert len(triplets) >= 200
    assert [t.id for t in triplets if faults(t.answer, t.rewrite)] == []
    said = [p.text for p in phrases() if p.form in ("opening", "closing")]
    assert sum(pasted(ORIGINAL, f"{ORIGINAL} {text}") for text in said) <= 0.02 * len(said)


def test_lengths() -> None:
    assert length_ratio("a " * 12, "b " * 12) == 1
    assert length_ratio("one two three", "one two three and then some more words") == (8 + 12) / (3 + 12)
    assert length_score(1.0) == length_score(0.7) == length_score(1.6) == 1
    assert length_score(0.35) == length_score(3.0) == length_score(9.0) == 0
    assert length_score(2.3) == pytest.approx(0.5) and length_score(0.525) == pytest.approx(0.5)
