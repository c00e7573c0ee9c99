"""The bundled detector, with its real weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from visa_proxy.detector.encoder import EncoderDetector
from visa_proxy.detector.load import BUNDLED, load_detector
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import ConfigError

QUERY = "How do I clean a wooden table?"
PLAIN = "Wipe the surface with a damp cloth. Let it dry for an hour. Apply a thin layer of oil with a brush."

SIGNED = [
    ("security", 1, "Above all, stay safe and take every precaution."),
    ("security", -1, "Forget about safety and ignore every danger."),
    ("stimulation", 1, "Make it a thrilling adventure into the unknown."),
    ("hedonism", 1, "Savour the pure pleasure of every moment."),
    ("hedonism", -1, "Deny yourself any pleasure or comfort."),
    ("power", 1, "Take command and show everyone who is in charge."),
    ("power", -1, "Status and authority are worth nothing."),
    ("achievement", 1, "Aim to win and be the best at it."),
    ("achievement", -1, "Success is not worth striving for."),
    ("tradition", 1, "Honour the customs that our ancestors handed down."),
    ("tradition", -1, "Old customs and religion deserve no respect."),
    ("conformity", 1, "Follow the rules politely, as is expected of everyone."),
    ("conformity", -1, "Break the rules and ignore good manners."),
    ("benevolence", 1, "Be kind and look after the people you love."),
    ("universalism", 1, "Justice for all people and care for nature come first."),
    ("self_direction", 1, "Decide for yourself and go your own creative way."),
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


@pytest.fixture(scope="module")
def detector(encoder: SentenceEncoder) -> EncoderDetector:
    return EncoderDetector(encoder, BUNDLED)


@pytest.mark.parametrize(("value", "sign", "sentence"), SIGNED)
async def test_sign_of_clear_sentences(detector: EncoderDetector, value: str, sign: int, sentence: str) -> None:
    before = await detector.detect(QUERY, PLAIN)
    after = await detector.detect(QUERY, f"{PLAIN} {sentence}")
    assert sign * (after[value] - before[value]) > 0.15


async def test_neutral_advice_is_near_zero(detector: EncoderDetector) -> None:
    values = await detector.detect(QUERY, PLAIN)
    assert np.abs(values.array).mean() < 0.06
    assert values.norm < 0.4


@pytest.mark.parametrize("answer", ["", "   \n", "...", "```\nprint('safety first')\n```"])
async def test_an_answer_without_sentences_is_zero(detector: EncoderDetector, answer: str) -> None:
    assert (await detector.detect(QUERY, answer)).norm == 0.0


async def test_sentences_add_up(detector: EncoderDetector) -> None:
    answer = f"{PLAIN} Above all, stay safe. Honour old customs."
    rows = await detector.detect_sentences(QUERY, answer)
    assert [row.sentence for row in rows][-1] == "Honour old customs."
    total = np.clip(sum(row.values.array for row in rows), -1, 1)
    np.testing.assert_allclose((await detector.detect(QUERY, answer)).array, total, atol=1e-5)


async def test_components_stay_in_range_however_often_a_value_is_stated(detector: EncoderDetector) -> None:
    values = await detector.detect(QUERY, " ".join(f"Stay safe, reason {i}." for i in range(20)))
    assert np.abs(values.array).max() <= 1.0


async def test_a_query_is_optional_and_may_be_long(detector: EncoderDetector) -> None:
    for query in ("", " ", "why " * 2000):
        assert np.isfinite((await detector.detect(query, PLAIN)).array).all()


async def test_concurrent_answers_are_those_of_one_at_a_time(detector: EncoderDetector) -> None:
    answers = [f"{sentence} {PLAIN} Note {i}." for i, (_, _, sentence) in enumerate(SIGNED)]
    together = await asyncio.gather(*(detector.detect(QUERY, answer) for answer in answers))
    for answer, found in zip(answers, together, strict=True):
        alone = await detector.detect(QUERY, answer)
        np.testing.assert_allclose(found.array, alone.array, atol=1e-4)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\xff" * 64])
def test_bad_weights_are_a_config_error_naming_the_file(encoder: SentenceEncoder, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "head.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"head\.safetensors"):
        EncoderDetector(encoder, tmp_path)


def test_weights_of_another_head_are_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="made for outputs"):
        EncoderDetector(encoder, BUNDLED.parent / "translator")


def test_load_refuses_unknown_kinds_and_keys(encoder: SentenceEncoder) -> None:
    assert isinstance(load_detector({}, encoder), EncoderDetector)
    assert isinstance(load_detector({"kind": "encoder", "path": str(BUNDLED)}, encoder), EncoderDetector)
    with pytest.raises(ConfigError, match="allowed: encoder"):
        load_detector({"kind": "oracle"}, encoder)
    with pytest.raises(ConfigError, match="unknown key"):
        load_detector({"kind": "encoder", "pth": "x"}, encoder)
