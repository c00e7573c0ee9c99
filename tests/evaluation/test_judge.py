"""The judge, with the real instruments: what it measures, and that gaming them does not pay."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.evaluation.samples import ANSWER, case
from visa_proxy.detector import weights
from visa_proxy.errors import ConfigError
from visa_proxy.evaluation import collect, metrics
from visa_proxy.evaluation.cases import Case
from visa_proxy.evaluation.judge import Judge, JudgeFiles
from visa_proxy.evaluation.metrics import Array, Flags
from visa_proxy.server.components import Instruments
from visa_proxy.shield.preserve import protect
from visa_proxy.training.baselines import Lexicon
from visa_proxy.training.rewards import grader as grading
from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.triplets import KINDS, Triplet, degenerate, named, written

PAIRS = 40
"""Triplets, each against one output of every kind."""


def judge_of(instruments: Instruments, lexicon: Lexicon | None = None) -> Judge:
    return Judge(grading.Grader(instruments.detector, instruments.facts), lexicon)


async def judged(judge: Judge, cases: list[Case], texts: list[str]) -> tuple[Array, Flags]:
    """Score and joint success of each."""
    rows = [{"text": text, **await judge.judge(case, text)} for case, text in zip(cases, texts, strict=True)]
    measured = collect.measured(cases, rows)
    return metrics.score(measured, Bounds()), metrics.success(measured, Bounds())


def as_case(triplet: Triplet) -> Case:
    return Case(triplet.id, triplet.topic, triplet.query, triplet.answer, triplet.target, named(triplet.target))


async def test_gaming_the_judge_does_not_pay(instruments: Instruments) -> None:
    judge = judge_of(instruments)
    triplets = random.Random(0).sample(written(), PAIRS)
    cases = [as_case(each) for each in triplets]
    honest, successes = await judged(judge, cases, [each.rewrite for each in triplets])
    below: Counter[str] = Counter()
    gamed: Counter[str] = Counter()
    for kind in KINDS:
        rng = random.Random(kind)
        scores, theirs = await judged(judge, cases, [degenerate(each, kind, rng) for each in triplets])
        below[kind], gamed[kind] = int((scores < honest).sum()), int(theirs.sum())
    assert sum(below.values()) >= 0.99 * PAIRS * len(KINDS), below
    assert all(count < successes.sum() / 2 for count in gamed.values()), (successes.sum(), gamed)


async def test_what_is_measured(instruments: Instruments) -> None:
    judge = judge_of(instruments)
    made = await judge.judge(case(), f"{ANSWER} Allow 5 minutes for it.")
    assert made["consistency"] == 0 and made["gained"] > 0 and made["length"] > 1 and made["changed"] and not made["fault"]
    echo = await judge.judge(case(), ANSWER)
    assert (echo["consistency"], echo["changed"], echo["fault"]) == (1, False, "") and echo["before"] == echo["after"]


async def test_a_joint_success_is_the_same_in_training_and_here(instruments: Instruments) -> None:
    judge, grader = judge_of(instruments), grading.Grader(instruments.detector, instruments.facts)
    triplets = random.Random(1).sample(written(), 24)
    cases = [as_case(each) for each in triplets]
    texts = [each.rewrite if i % 6 else degenerate(each, "other", random.Random(i)) for i, each in enumerate(triplets)]
    _, successes = await judged(judge, cases, texts)
    asked = [grading.Case(each.query, each.answer, protect(each.answer), each.target) for each in cases]
    grades = await grader.grade_texts(asked, texts)
    assert [grade.success(Bounds()) for grade in grades] == list(successes)
    assert 0 < successes.sum() < len(successes)


async def test_words_are_counted_beside(instruments: Instruments, tmp_path: Path) -> None:
    names = (
        "Achievement Benevolence Conformity Hedonism Power Security Self-Direction Stimulation Tradition Universalism"
    ).split()
    words = {name: [f"{name.lower()}word"] for name in names} | {"Stimulation": ["adventure", "thrill"]}
    file = tmp_path / "pyvalues-dictionary" / "en.json"
    file.parent.mkdir()
    file.write_text(str(words).replace("'", '"'), encoding="utf-8")
    lexicon = Lexicon(tmp_path, case().target.space)
    made = await judge_of(instruments, lexicon).judge(case(), "What a thrill. It is.")
    assert made["after"]["words"][case().target.space.index["stimulation"]] == 0.5 and not any(made["before"]["words"])


def test_the_digest_is_of_contents(tmp_path: Path) -> None:
    assert JudgeFiles().digest() == JudgeFiles().digest() and JudgeFiles().bundled() == ["detector", "facts"]
    for file in weights.BUNDLED.glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    # Checkpoints are no part of what was trained.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "schwartz.safetensors").write_bytes(b"other")
    assert JudgeFiles(detector=tmp_path).digest() == JudgeFiles().digest()
    (tmp_path / "schwartz.safetensors").write_bytes(b"other")
    assert JudgeFiles(detector=tmp_path).digest() != JudgeFiles().digest()
    assert JudgeFiles(detector=tmp_path).bundled() == ["facts"]


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pyvalues-dictionary: there is no such file or folder"):
        JudgeFiles(lexicon=tmp_path).digest()
