"""The fact analyzer on its bundled weights and the real encoder."""

import asyncio
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactAnalyzer, FactReport
from visa_proxy.facts.load import BUNDLED, load_facts
from visa_proxy.facts.nli import EntailmentAnalyzer
from visa_proxy.llm.instrument import Settings

ANSWER = (
    "Rinse the rice in cold water until the water runs clear. Bring a pot of water to a boil and add the rice. "
    "Let it simmer with the lid on for 15 minutes. If the rice is still hard, add a little more water."
)
FRAMED = (
    "Your safety comes before everything else here. "
    "To stay on the safe side, rinse the rice in cold water until the water runs clear. "
    "Bring a pot of water to a boil and add the rice, just in case. Let it simmer with the lid on for 15 minutes. "
    "If the rice is still hard, add a little more water. Make it an adventure."
)


@pytest.fixture(scope="module")
def facts() -> FactAnalyzer:
    return load_facts()


def compare(facts: FactAnalyzer, original: str, rewritten: str) -> FactReport:
    return asyncio.run(facts.compare(original, rewritten))


def test_framings_are_entailed_both_ways(facts: FactAnalyzer) -> None:
    report = compare(facts, ANSWER, FRAMED)
    assert report.consistency >= 0.6
    assert not report.lost and not report.gained
    assert compare(facts, FRAMED, ANSWER).consistency >= 0.6


def test_most_framings_on_their_own_add_no_claim(facts: FactAnalyzer) -> None:
    """A trained head errs: MODEL_CARD has the rate on held-out ones."""
    framings = [
        "Make it an adventure.",
        "Peace of mind is worth more than any shortcut.",
        "Enjoy every moment!",
        "Be kind to yourself along the way.",
        "Our grandparents knew as much.",
        "Stay on the safe side.",
        "Go your own way with it.",
        "Fairness comes first.",
    ]
    entailed = [compare(facts, ANSWER, f"{ANSWER} {framing}").consistency >= 0.6 for framing in framings]
    assert sum(entailed) >= 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cold water", "hot water"),
        ("15 minutes", "50 minutes"),
        ("Bring a pot", "Never bring a pot"),
        ("with the lid on", "with the lid on, which doctors recommend,"),
        ("If the rice is still hard, add", "Add"),
        ("and add the rice.", "and add the rice, and it is free of charge."),
        ("Let it simmer", "Let it freeze"),
        (" Let it simmer with the lid on for 15 minutes.", ""),
        ("Bring a pot", "Fry the onions in butter. Bring a pot"),
        ("a little more water.", "a little more water. The law requires it in most countries."),
        ("add the rice.", "add the violin."),
    ],
)
def test_a_changed_fact_is_not_entailed(facts: FactAnalyzer, old: str, new: str) -> None:
    assert old in ANSWER
    assert compare(facts, ANSWER, ANSWER.replace(old, new)).consistency < 0.6
    spoilt = FRAMED.replace(old, new).replace(old.lower(), new.lower())
    if spoilt != FRAMED:  # what a framing stands next to, it does not hold word for word
        assert compare(facts, ANSWER, spoilt).consistency < 0.6


def test_steps_in_another_order_or_said_again_are_no_rewrite(facts: FactAnalyzer) -> None:
    first, second, third = "Turn off the power at the main switch.", "Open the cover of the box.", "Check both wires for voltage."
    original = f"1. {first}\n2. {second}\n3. {third}"
    swapped, repeated = f"1. {second}\n2. {first}\n3. {third}", f"{original}\n4. {second}"
    assert compare(facts, original, swapped).consistency == 0.0
    assert any(found.startswith("order:") for found in compare(facts, original, swapped).lost)
    assert compare(facts, original, repeated).consistency == 0.0
    assert compare(facts, original, f"{original}\nMake it an adventure.").lost == ()


def test_the_directions_are_told_apart(facts: FactAnalyzer) -> None:
    longer = f"{ANSWER} Serve it with grilled chicken and a salad."
    added, dropped = compare(facts, ANSWER, longer), compare(facts, longer, ANSWER)
    assert added.forward == dropped.backward == 1.0
    assert added.backward < 0.6
    assert dropped.forward == pytest.approx(added.backward, abs=1e-5)


def test_sentences_may_be_joined_and_split(facts: FactAnalyzer) -> None:
    split = "Plants need light. They also need water."
    joined = "Plants need light, and they also need water."
    assert compare(facts, split, joined).consistency >= 0.6
    assert compare(facts, joined, split).consistency >= 0.6


@pytest.mark.parametrize(
    "text", ["", "Hello.", ANSWER, "Ça va très bien, merci 🙂. 水は大切です。", "```python\nx = 1\n```", "\n\n---\n"]
)
def test_a_text_is_consistent_with_itself(facts: FactAnalyzer, text: str) -> None:
    assert compare(facts, text, text) == FactReport(1.0, 1.0)
    assert compare(facts, text, f"  {text}\n").consistency == 1.0


def test_nothing_says_nothing(facts: FactAnalyzer) -> None:
    assert compare(facts, "", ANSWER).consistency == 0.0
    assert compare(facts, ANSWER, "").consistency == 0.0


def test_code_counts_by_character(facts: FactAnalyzer) -> None:
    assert compare(facts, f"{ANSWER}\n```\nx = 1\n```", f"{ANSWER}\n```\nx = 2\n```").consistency == 0.0


@pytest.mark.parametrize("text", ["\x00\ud7ff word.", "a" * 5000, "word " * 3000, "?!?!", "⟦1⟧ is here.", "١٢٣ كلمة."])
def test_odd_texts_give_a_number(facts: FactAnalyzer, text: str) -> None:
    report = compare(facts, ANSWER, text)
    assert 0.0 <= report.consistency <= 1.0


def test_two_hundred_sentences_within_time(facts: FactAnalyzer) -> None:
    original = " ".join(f"The shelf in row {i} holds box number {i + 7}." for i in range(200))
    rewritten = original.replace("The shelf in row 9 ", "To stay on the safe side, the shelf in row 9 ")
    started = time.perf_counter()
    compare(facts, original, rewritten)
    assert time.perf_counter() - started < 20.0


def test_concurrent_equals_serial(facts: FactAnalyzer) -> None:
    texts = [ANSWER.replace("rice", word) for word in ("rice", "pasta", "corn", "barley", "wheat", "millet", "oats", "beans")]

    async def together() -> list[FactReport]:
        return await asyncio.gather(*(facts.compare(ANSWER, text) for text in texts * 4))

    serial = [compare(facts, ANSWER, text) for text in texts]
    for report, expected in zip(asyncio.run(together()), serial * 4, strict=True):
        assert report.forward == pytest.approx(expected.forward, abs=1e-4)
        assert report.backward == pytest.approx(expected.backward, abs=1e-4)


def test_bundled_weights_are_small() -> None:
    assert (BUNDLED / "model.safetensors").stat().st_size < 4_000_000
    assert "visa-proxy train facts" in (BUNDLED / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", None])
def test_unusable_weights_are_a_config_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors") as error:
        load_facts(Settings(kind="nli", path=str(tmp_path)))
    assert str(tmp_path) in str(error.value)


def test_a_changed_sentence_that_is_too_long_to_read_is_not_covered(facts: FactAnalyzer) -> None:
    original = "Keep the lid on while it " + "simmers gently and " * 60 + "rests."
    report = compare(facts, original, original.replace("rests.", "rests in a pan that nobody may ever wash."))
    assert (report.forward, report.backward, report.consistency) == (0.0, 0.0, 0.0)
    assert compare(facts, original, original).consistency == 1.0


def test_whole_numbers_for_weights_are_refused(tmp_path: Path) -> None:
    for file in BUNDLED.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as source:
        metadata, tensors = source.metadata(), {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    tensors["attend.weight"] = tensors["attend.weight"].astype(np.int64)
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ConfigError, match=r"model\.safetensors: facts: the weights hold .* whole numbers"):
        load_facts(Settings(kind="nli", path=str(tmp_path)))


def test_an_unknown_kind_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"facts\.kind: unknown kind 'oracle'; allowed: nli"):
        load_facts(Settings(kind="oracle"))


def test_the_report_says_which_sentence_lost_or_gained_what(facts: FactAnalyzer) -> None:
    rewritten = ANSWER.replace("15 minutes", "50 minutes").replace(
        "add a little more water.", "add a little more water. Serve it in Rome."
    )
    report = compare(facts, ANSWER, rewritten)
    changed = {(each.side, each.sentence): each for each in report.sentences}
    assert {side for side, _ in changed} == {"original", "rewritten"}
    lost = changed["original", "Let it simmer with the lid on for 15 minutes."]
    gained = changed["rewritten", "Let it simmer with the lid on for 50 minutes."]
    assert (lost.facts, gained.facts) == (("number:15",), ("number:50",))
    assert changed["rewritten", "Serve it in Rome."].facts == ("name:Rome",)
    for side, direction in (("original", report.forward), ("rewritten", report.backward)):
        assert direction == min(each.covered for each in report.sentences if each.side == side)
    assert not any("Rinse" in sentence for _, sentence in changed)  # what did not change is not asked about


def test_a_fact_is_told_of_the_sentence_it_stands_in(facts: FactAnalyzer) -> None:
    original = "Do not mix it with bleach. The park opened in 2015. Add 5 eggs to the dough."
    rewritten = "Gladly mix it with bleach. The lovely park opened in 2015. Add 6 eggs to the fine dough."
    told = {each.sentence: each.facts for each in compare(facts, original, rewritten).sentences if each.side == "original"}
    assert told == {
        "Do not mix it with bleach.": ("negation:¬mix",),
        "The park opened in 2015.": (),
        "Add 5 eggs to the dough.": ("number:5",),
    }


def test_sentences_that_did_not_change_are_not_encoded(facts: FactAnalyzer) -> None:
    assert isinstance(facts, EntailmentAnalyzer)
    unchanged = "The seventh reading of the gauge stands in the green book."
    texts = [unchanged, "Turn the tap slowly.", "Wait for the hiss to stop."]
    original, rewritten = " ".join(texts), " ".join([*texts[:1], "With care, turn the tap slowly.", *texts[2:]])
    compare(facts, original, rewritten)
    assert unchanged not in facts.encoder._cache and "Turn the tap slowly." in facts.encoder._cache
