"""Forms that no rewritten answer has, and forms that one may have."""

from __future__ import annotations

import pytest

from tests.evaluation.samples import ANSWER, case
from visa_proxy.evaluation.form import fault
from visa_proxy.training.triplets import written

FAULTY = {
    "nothing": (" \n", "empty"),
    "the control line": (f"stimulation +2\n{ANSWER}", "leaked"),
    "other levels": (f"{ANSWER}\nsecurity: -1", "leaked"),
    "a heading of the prompt": (f"Target values: stimulation\n\n{ANSWER}", "leaked"),
    "a rule of the prompt": (f"{ANSWER} keep the language of the original and about its length", "leaked"),
    "a role": (f"As a very daring assistant: {ANSWER}", "leaked"),
    "a lone placeholder": (f"{ANSWER} ⟦3⟧", "leaked"),
    "names of values": (f"{ANSWER} Stimulation, power, security.", "list"),
    "one name": (f"{ANSWER} Stimulation!", "list"),
    "words": (f"{ANSWER} Thrill, adventure, new challenges.", "list"),
    "words in a frame": (f"{ANSWER} This is about thrill, adventure, daring.", "list"),
    "a command": (f"{ANSWER} Be daring and excited.", "list"),
    "a sentence twice": (f"What fun it is. {ANSWER} What fun it is.", "repeated"),
    "a cry": (f"{ANSWER} Go! Go! Go!", "repeated"),
    "a loop": (f"{ANSWER} It is for the thrill of it, for the thrill of it and for the thrill of it.", "repeated"),
    "half of it": (ANSWER.removesuffix(" it is cold."), "cut"),
    "little of it": ("Brush it.", "short"),
    "too much": (
        f"{ANSWER} It goes on {'and ' * 2}{'on' * 150}.",
        "long",
    ),
}


@pytest.mark.parametrize(("text", "found"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_form_is_named(text: str, found: str) -> None:
    assert fault(case(), text) == found


@pytest.mark.parametrize(
    "text",
    [
        ANSWER.replace(" ", "\n"),
        f"For the thrill of it, b{ANSWER[1:]} Make it an adventure.",
        "Brush the grate while it is warm, which keeps you safe, calm and free. Empty the tray once it is cold.",
        "Brush the grate while it is warm! Then, if you like, empty the tray once it is cold.",
    ],
)
def test_an_honest_rewrite_has_none(text: str) -> None:
    assert fault(case(), text) == ""


def test_what_the_answer_has_is_no_fault() -> None:
    answer = "Security, power, health. Press it. Press it. Press it. Type ⟦1⟧ or security -1, red, blue, green"
    assert fault(case(answer=answer), f"Enjoy it. {answer}") == ""


def test_what_people_wrote_has_none() -> None:
    faulty = [each.id for each in written() if fault(case(answer=each.answer), each.rewrite)]
    assert len(faulty) <= len(written()) / 100, faulty
