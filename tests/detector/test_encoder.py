"""The bundled detector, with its real weights."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from visa_proxy.detector.encoder import EncoderDetector
from visa_proxy.detector.load import load_detector
from visa_proxy.detector.weights import BUNDLED, load_encoder_detector
from visa_proxy.errors import ConfigError
from visa_proxy.llm.instrument import Settings

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
def detector() -> EncoderDetector:
    return load_encoder_detector()


@pytest.fixture(scope="module")
def wider() -> EncoderDetector:
    return load_encoder_detector(spaces=["tone", "inglehart-welzel"])


@pytest.mark.parametrize(("value", "sign", "sentence"), SIGNED)
async def test_sign_of_clear_sentences(detector: EncoderDetector, value: str, sign: int, sentence: str) -> None:
    before = (await detector.detect(QUERY, PLAIN)).values
    after = (await detector.detect(QUERY, f"{PLAIN} {sentence}")).values
    assert sign * (after[value] - before[value]) > 0.15


async def test_neutral_advice_is_near_zero(detector: EncoderDetector) -> None:
    values = (await detector.detect(QUERY, PLAIN)).values
    assert np.abs(values.array).mean() < 0.08
    assert values.norm < 0.4


@pytest.mark.parametrize("answer", ["", "   \n", "...", "```\nprint('safety first')\n```"])
async def test_an_answer_without_sentences_is_zero(detector: EncoderDetector, answer: str) -> None:
    assert (await detector.detect(QUERY, answer)).values.norm == 0.0


async def test_sentences_add_up(detector: EncoderDetector) -> None:
    answer = f"{PLAIN} Above all, stay safe. Honour old customs."
    reading = await detector.detect(QUERY, answer)
    assert [each.sentence for each in reading.sentences][-1] == "Honour old customs."
    total = np.clip(sum(each.values.array for each in reading.sentences), -1, 1)
    np.testing.assert_allclose(reading.values.array, total, atol=1e-5)


async def test_the_sentence_that_carries_a_value_is_found(detector: EncoderDetector) -> None:
    reading = await detector.detect(QUERY, f"{PLAIN} Above all, stay safe and take every precaution. Oil costs little.")
    levels = [each.values["security"] for each in reading.sentences]
    assert int(np.argmax(levels)) == 3


async def test_confidence_is_a_probability_for_every_dimension(detector: EncoderDetector) -> None:
    reading = await detector.detect(QUERY, PLAIN)
    assert tuple(reading.confidence) == detector.space.names
    assert all(0 < sure <= 1 for sure in reading.confidence.values())


async def test_other_spaces_change_nothing_of_this_one() -> None:
    # Both from the start: what was encoded before, and so what is encoded together, shows in the last bits.
    detector, wider = load_encoder_detector(), load_encoder_detector(spaces=["tone", "inglehart-welzel"])
    for _, _, sentence in SIGNED:
        answer = f"{PLAIN} {sentence}"
        alone, beside = await detector.detect(QUERY, answer), await wider.detect(QUERY, answer)
        assert beside.values.within(detector.space).array.tobytes() == alone.values.array.tobytes()
        assert {name: beside.confidence[name] for name in detector.space.names} == alone.confidence


@pytest.mark.parametrize(
    ("dimension", "sign", "answer"),
    [
        ("formality", 1, "We respectfully request that you kindly complete the enclosed form at your earliest convenience."),
        ("formality", -1, "Nah mate, just chuck it in the bin, no biggie."),
        ("warmth", 1, "We are so glad you wrote to us, and we hope with all our heart that your little one feels better soon."),
        (
            "progressive_gender_roles",
            1,
            "Fathers can stay at home with the baby just as well as mothers, so share the leave equally.",
        ),
    ],
)
async def test_other_spaces_read_clear_answers(wider: EncoderDetector, dimension: str, sign: int, answer: str) -> None:
    assert sign * (await wider.detect("", answer)).values[dimension] > 0.15


async def test_components_stay_in_range_however_often_a_value_is_stated(detector: EncoderDetector) -> None:
    values = (await detector.detect(QUERY, " ".join(f"Stay safe, reason {i}." for i in range(20)))).values
    assert np.abs(values.array).max() <= 1.0


async def test_a_query_is_optional_and_may_be_long(detector: EncoderDetector) -> None:
    for query in ("", " ", "why " * 2000):
        assert np.isfinite((await detector.detect(query, PLAIN)).values.array).all()


async def test_concurrent_answers_are_those_of_one_at_a_time(detector: EncoderDetector) -> None:
    answers = [f"{sentence} {PLAIN} Note {i}." for i, (_, _, sentence) in enumerate(SIGNED)]
    together = await asyncio.gather(*(detector.detect(QUERY, answer) for answer in answers))
    for answer, found in zip(answers, together, strict=True):
        alone = await detector.detect(QUERY, answer)
        np.testing.assert_allclose(found.values.array, alone.values.array, atol=0.02)  # bfloat16, other batches


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\xff" * 64])
@pytest.mark.parametrize("name", ["schwartz.safetensors", "layers.safetensors"])
def test_bad_weights_are_a_config_error_naming_the_file(tmp_path: Path, name: str, content: bytes | None) -> None:
    shutil.copytree(BUNDLED, tmp_path / "detector")
    file = tmp_path / "detector" / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    # Without its layers a folder is one of the frozen encoder's, which these heads were not made for.
    said = "holds frozen" if content is None and name == "layers.safetensors" else name
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_encoder_detector(tmp_path / "detector")


def test_heads_of_another_encoder_are_refused(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "detector")
    shutil.copyfile(BUNDLED.parent / "translator" / "layers.safetensors", tmp_path / "detector" / "layers.safetensors")
    with pytest.raises(ConfigError, match=r"made for the encoder .* train the space again"):
        load_encoder_detector(tmp_path / "detector")


def test_a_head_of_other_outputs_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "detector")
    shutil.copyfile(BUNDLED / "tone.safetensors", tmp_path / "detector" / "schwartz.safetensors")
    with pytest.raises(ConfigError, match="made for outputs"):
        load_encoder_detector(tmp_path / "detector")


@pytest.mark.parametrize(("spread", "kind"), [("abc", "f"), ("nan", "f"), ("-1", "f"), ("0", "f"), ("1", "i")])
def test_what_a_head_says_of_itself_is_checked(tmp_path: Path, spread: str, kind: str) -> None:
    shutil.copytree(BUNDLED, tmp_path / "detector")
    file = tmp_path / "detector" / "schwartz.safetensors"
    with safe_open(file, framework="numpy") as source:
        metadata = dict(source.metadata()) | {"spread": spread}
        tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    if kind == "i":
        tensors["gate"] = tensors["gate"].astype(np.int64)
    save_file(tensors, file, metadata)
    with pytest.raises(ConfigError, match=r"schwartz\.safetensors: .*(spread: found|no finite fractions)"):
        load_encoder_detector(tmp_path / "detector")


def test_load_refuses_unknown_kinds() -> None:
    assert isinstance(load_detector(), EncoderDetector)
    assert isinstance(load_detector(Settings(path=str(BUNDLED))), EncoderDetector)
    with pytest.raises(ConfigError, match="allowed: encoder, judge, vllm"):
        load_detector(Settings("oracle"))
