"""The bundled translator, with its real weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError
from visa_proxy.translator.encoder import EncoderTranslator
from visa_proxy.translator.load import BUNDLED, load_translator

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
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


@pytest.fixture(scope="module")
def translator(encoder: SentenceEncoder) -> EncoderTranslator:
    return EncoderTranslator(encoder, BUNDLED)


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
        np.testing.assert_allclose(found.offset.array, alone.offset.array, atol=1e-4)
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-4)


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_bad_weights_are_a_config_error_naming_the_file(encoder: SentenceEncoder, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "head.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"head\.safetensors"):
        EncoderTranslator(encoder, tmp_path)


def test_load_refuses_unknown_kinds_and_keys(encoder: SentenceEncoder) -> None:
    assert isinstance(load_translator({"kind": "encoder"}, encoder), EncoderTranslator)
    with pytest.raises(ConfigError, match="allowed: encoder"):
        load_translator({"kind": "oracle"}, encoder)
    with pytest.raises(ConfigError, match="unknown key"):
        load_translator({"path": str(BUNDLED), "x": 1}, encoder)
