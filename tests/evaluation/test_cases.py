"""The frozen cases, and what is wrong with other people's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.samples import case, some_cases, write_cases
from visa_proxy.errors import ConfigError
from visa_proxy.evaluation.cases import bundled, dumps, read_cases, space
from visa_proxy.evaluation.draw import COUNT, INSERT_EVERY, draw_cases, drawn
from visa_proxy.evaluation.inserts import INSERTS, sentence
from visa_proxy.shield.preserve import protect
from visa_proxy.training import annotated

SOURCES = annotated.parts(annotated.bundled(space()))["test"]
GOOD: dict[str, Any] = {"id": "a", "topic": "t", "query": "", "answer": "Yes. It is.", "target": {"power": 1}}


def test_the_bundled_file_is_what_its_seed_gives() -> None:
    assert dumps(drawn(seed=0)) == bundled().read_bytes()
    assert dumps(draw_cases(SOURCES[::-1], seed=0)) == bundled().read_bytes(), "the order of the sources has no say"
    assert dumps(draw_cases(SOURCES, seed=1)) != bundled().read_bytes()


def test_the_bundled_cases_are_balanced() -> None:
    cases = read_cases(bundled())
    assert len(cases) == COUNT
    assert len({each.digest for each in cases}) == COUNT
    steps = Counter((name, step > 0) for each in cases for name, step in (each.offset or {}).items())
    assert len(steps) == 20 and max(steps.values()) - min(steps.values()) <= 3
    assert Counter(len(each.offset or {}) for each in cases) == {1: 100, 2: 100, 3: 100}
    topics = Counter(each.topic for each in cases)
    assert len(topics) == 65 and max(topics.values()) - min(topics.values()) <= 1


def test_targets_are_what_the_annotators_said_and_the_offset() -> None:
    labels = {(source.topic, source.query): source for source in SOURCES}
    for each in read_cases(bundled()):
        assert each.offset is not None
        source = labels[each.topic, each.query]
        for i, name in enumerate(space().names):
            wanted = float(source.values[i]) + each.offset.get(name, 0.0)
            assert each.target[name] == max(-1.0, min(1.0, wanted))
        assert sum(step**2 for step in each.offset.values()) ** 0.5 > 0.75, "leaving it alone must be no success"


def test_a_fifth_has_something_more_to_preserve() -> None:
    for each in read_cases(bundled())[::INSERT_EVERY]:
        assert protect(each.answer).spans


@pytest.mark.parametrize("kind", INSERTS)
def test_every_insert_holds_a_span(kind: str) -> None:
    for draw in range(len(INSERTS[kind])):
        assert protect(f"It is so. {sentence(kind, 'garage sales', draw)}").spans


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cases = some_cases(3)
    assert read_cases(write_cases(tmp_path / "cases.jsonl", cases)) == cases


def test_the_digest_is_of_what_is_asked() -> None:
    one = case(1, topic="a")
    assert one.digest == case(2, topic="b").digest
    assert one.digest != case(1, power=0.5).digest
    assert one.digest != case(1, answer="Other.").digest


WRONG = {
    "no JSON": ("{", "no JSON"),
    "no object": ("[1]", "found a list, allowed: an object"),
    "unknown key": (GOOD | {"values": {}}, "unknown key 'values'"),
    "no id": ({k: v for k, v in GOOD.items() if k != "id"}, "id: found"),
    "blank answer": (GOOD | {"answer": " "}, "answer: found"),
    "unknown value": (GOOD | {"target": {"bravery": 1}}, "target: unknown value 'bravery'"),
    "too much": (GOOD | {"target": {"power": 2}}, "target.power: found 2, allowed: -1 … 1"),
    "true": (GOOD | {"target": {"power": True}}, "target.power: found"),
    "no target": (GOOD | {"target": {"power": 0}}, "target: found no level but 0"),
    "offset": (GOOD | {"offset": {"power": 3}}, "offset.power: found 3, allowed: -2 … 2"),
    "glossary": (GOOD | {"glossary": "Acme"}, "glossary: found"),
    "same id": (GOOD, "id: found 'a', which line 1 has too"),
}


@pytest.mark.parametrize(("wrong", "problem"), WRONG.values(), ids=WRONG)
def test_every_wrong_row_is_named(tmp_path: Path, wrong: Any, problem: str) -> None:
    file = tmp_path / "cases.jsonl"
    line = wrong if isinstance(wrong, str) else json.dumps(wrong)
    file.write_text("\n".join([json.dumps(GOOD), line, "", line]), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_cases(file)
    for found, number in zip(error.value.problems, (2, 4), strict=True):
        assert found.startswith(f"{file}, line {number}: {problem}")


def test_a_file_without_cases_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no case in it"):
        read_cases(tmp_path / "empty.jsonl")
    with pytest.raises(ConfigError, match="cannot read it"):
        read_cases(tmp_path / "none.jsonl")
