"""Synthetic rewrites say what the control line asks for and leave the rest of the text alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.shield.preserve import PLACEHOLDER, protect
from visa_proxy.training.corpus import read_dolly, windows
from visa_proxy.training.phrases import phrases
from visa_proxy.training.sources import Sources, cut, cut_protected, joined
from visa_proxy.training.synthesis import Marks, Synthesizer, written
from visa_proxy.values import load_space

TEXTS = (
    "You can start with a short walk every day. The path by the river is flat. Bring water and a light jacket.",
    "A budget lists what comes in and what goes out. Write down every expense for a month. Mint costs $5 a month.",
    "Here are two ways to do it:\n\n1. Ask a friend for help.\n2. Read the manual.\n\nYou should try both. It takes an hour.",
    "You can ask for a refund in writing. Keep the receipt in a safe place. They answer within two weeks mostly.",
)


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer(load_space("schwartz"), Sources.of([*TEXTS, *[text.lower() for text in TEXTS] * 3]), phrases())


def test_cutting_a_text_loses_nothing() -> None:
    for text in TEXTS:
        assert joined(cut(text)) == text


def test_list_lines_and_lone_placeholders_are_no_prose() -> None:
    pieces = cut_protected(protect(TEXTS[2] + "\n\n```\nmake\n```"))
    assert [piece.text for piece in pieces if piece.prose] == [
        "Here are two ways to do it:",
        "You should try both.",
        "It takes an hour.",
    ]
    assert pieces[-1].text == "⟦3⟧"
    assert not pieces[-1].prose


def test_pairs_keep_every_placeholder_in_order(synthesizer: Synthesizer) -> None:
    rng = random.Random(1)
    for _ in range(300):
        pair = synthesizer.pair(rng)
        assert PLACEHOLDER.findall(pair.answer) == PLACEHOLDER.findall(pair.source)
        assert pair.prompt.endswith("\n" + pair.source)


def test_a_plan_uses_only_wanted_phrases_and_strong_values_come_first(synthesizer: Synthesizer) -> None:
    rng = random.Random(2)
    target = {"security": -0.5, "stimulation": 1.0}
    pieces = cut(TEXTS[0])
    for _ in range(50):
        marks = synthesizer.plan(pieces, target, rng)
        said = {(phrase.value, phrase.level) for phrase in marks.all()}
        assert ("stimulation", 1.0) in said
        assert said <= set(target.items())


def test_taking_the_phrases_out_gives_back_the_neutral_text(synthesizer: Synthesizer) -> None:
    rng = random.Random(3)
    pieces = cut(TEXTS[3])
    marks = synthesizer.plan(pieces, {"power": 1.0, "hedonism": 1.0}, rng)
    assert written(pieces, marks) != TEXTS[3]
    assert written(pieces, Marks()) == TEXTS[3]


def test_a_rewrite_of_a_longer_text_is_about_40_percent_longer_at_most(synthesizer: Synthesizer) -> None:
    rng = random.Random(4)
    pieces = cut(" ".join(TEXTS[:2] + TEXTS[3:]))
    words = len(joined(pieces).split())
    lengths = [len(written(pieces, synthesizer.plan(pieces, synthesizer.target(rng), rng)).split()) for _ in range(100)]
    assert max(lengths) < 1.7 * words
    assert sum(lengths) / len(lengths) < 1.4 * words


def test_the_same_seed_gives_the_same_pairs(synthesizer: Synthesizer) -> None:
    first, second = random.Random(5), random.Random(5)
    assert [synthesizer.pair(first) for _ in range(20)] == [synthesizer.pair(second) for _ in range(20)]


def test_windows_keep_lists_with_their_introduction() -> None:
    text = TEXTS[2] + " " + "Then rest for a while and look at the result once more."
    assert list(windows(text)) == [text]


def test_read_dolly_splits_by_instruction_and_names_the_data_set_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="databricks-dolly-15k"):
        read_dolly(tmp_path)
    rows = [{"instruction": f"q{i}", "context": "", "response": TEXTS[i % 4], "category": ""} for i in range(200)]
    (tmp_path / "dolly").mkdir()
    (tmp_path / "dolly" / "a.json").write_text(json.dumps(rows))
    train, heldout = read_dolly(tmp_path, "train"), read_dolly(tmp_path, "heldout")
    assert len(train) + len(heldout) == len(read_dolly(tmp_path)) == 200
    assert 0 < len(heldout) < 40
    (tmp_path / "dolly" / "b.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"b\.json"):
        read_dolly(tmp_path)
