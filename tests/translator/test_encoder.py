"""The bundled translator, with its real weights."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.llm.instrument import Settings
from visa_proxy.translator.base import NOT_ENGLISH
from visa_proxy.translator.encoder import BUNDLED, EncoderTranslator
from visa_proxy.translator.load import load_translator

SIGNED = [
    ("Please make this more adventurous and exciting.", {"stimulation": 1}),
    ("I would like it to be far less daring.", {"stimulation": -1}),
    ("Put a lot more weight on staying safe.", {"security": 1}),
    ("Less caution, please.", {"security": -1}),
    ("Sound kinder and more caring.", {"benevolence": 1}),
    ("Stress our heritage and customs.", {"tradition": 1}),
    ("Make it more polite and rule-abiding.", {"conformity": 1}),
    ("It should ooze status and wealth.", {"power": 1}),
    ("Less about status and prestige.", {"power": -1}),
    ("Push success and ambition harder.", {"achievement": 1}),
    ("Make it more about pleasure and comfort.", {"hedonism": 1}),
    ("More freedom and creativity for the reader.", {"self_direction": 1}),
    ("Talk more about equality and nature.", {"universalism": 1}),
    ("More about security, but less about power.", {"security": 1, "power": -1}),
]
NOTHING = [
    "What is the boiling point of water?",
    "zxcv qwop 99 lkj",
    "Translate the second paragraph into Spanish.",
    "The invoice was sent on Tuesday.",
]


@pytest.fixture(scope="module")
def translator() -> EncoderTranslator:
    return EncoderTranslator()


@pytest.mark.parametrize(("instruction", "signs"), SIGNED)
async def test_sign_of_clear_instructions(translator: EncoderTranslator, instruction: str, signs: dict[str, int]) -> None:
    found = await translator.translate("", "", instruction)
    assert found.confidence > 0.5
    for value, sign in signs.items():
        assert sign * found.offset[value] > 0.1, (value, found)


@pytest.mark.parametrize("text", NOTHING)
async def test_text_that_asks_for_no_value_moves_nothing(translator: EncoderTranslator, text: str) -> None:
    found = await translator.translate("", "", text)
    assert found.offset.norm < 0.25
    assert found.confidence < 0.5


@pytest.mark.parametrize("text", ["", "  ", "123 !!", "\n\t"])
async def test_no_letters_no_offset(translator: EncoderTranslator, text: str) -> None:
    found = await translator.translate("", "", text)
    assert (found.offset.norm, found.confidence) == (0.0, 0.0)


async def test_grading(translator: EncoderTranslator) -> None:
    slight = await translator.translate("", "", "Make it slightly more adventurous.")
    strong = await translator.translate("", "", "Make it much more adventurous.")
    assert 0 < slight.offset["stimulation"] < strong.offset["stimulation"]


async def test_concurrent_translations_are_those_of_one_at_a_time(translator: EncoderTranslator) -> None:
    texts = [f"{text} Please, number {i}." for i, (text, _) in enumerate(SIGNED)]
    together = await asyncio.gather(*(translator.translate("", "", text) for text in texts))
    for text, found in zip(texts, together, strict=True):
        alone = await translator.translate("", "", text)
        np.testing.assert_allclose(found.offset.array, alone.offset.array, atol=0.02)  # bfloat16, other batches
        assert found.confidence == pytest.approx(alone.confidence, abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "Bitte etwas freundlicher und vorsichtiger formulieren.",
        "Hazlo más atrevido, por favor.",
        "Moins de règles et plus de liberté, s'il vous plaît.",
        "もっと親しみやすくしてください。",
    ],
)
async def test_another_language_is_refused_with_a_reason(translator: EncoderTranslator, text: str) -> None:
    found = await translator.translate("", "", text)
    assert (found.offset.norm, found.confidence, found.note) == (0.0, 0.0, NOT_ENGLISH)


async def test_english_with_foreign_words_is_english(translator: EncoderTranslator) -> None:
    found = await translator.translate("", "", "Make the answer sound a lot more like la dolce vita.")
    assert found.note == ""


@pytest.mark.parametrize("content", [None, b"garbage"])
@pytest.mark.parametrize("name", ["head.safetensors", "layers.safetensors"])
def test_bad_weights_are_a_config_error_naming_the_file(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = tmp_path / "translator"
    shutil.copytree(BUNDLED, folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(folder))):
        EncoderTranslator(folder)


def test_load_refuses_unknown_kinds() -> None:
    assert isinstance(load_translator(), EncoderTranslator)
    assert isinstance(load_translator(Settings(path=str(BUNDLED))), EncoderTranslator)
    with pytest.raises(ConfigError, match="allowed: encoder, llm"):
        load_translator(Settings("oracle"))
