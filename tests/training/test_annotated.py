"""The annotated corpora of the package, and what a wrong row is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.annotated import Annotated, bundled, parts, read_annotated
from visa_proxy.training.detector import annotated
from visa_proxy.values import load_space

SCHWARTZ = load_space("schwartz")


@pytest.fixture(scope="module")
def corpus() -> list[Annotated]:
    return bundled(SCHWARTZ)


def test_the_corpus_has_every_value_at_every_level_and_every_kind(corpus: list[Annotated]) -> None:
    assert len(corpus) >= 600
    cells = Counter(
        (name, float(level)) for row in corpus for name, level in zip(SCHWARTZ.names, row.values, strict=True) if level
    )
    assert all(cells[name, level] >= 50 for name in SCHWARTZ.names for level in (-1.0, -0.5, 0.5, 1.0))
    kinds = Counter(row.kind for row in corpus)
    assert all(kinds[kind] >= 50 for kind in ("plain", "mixed", "neutral", "words", "implied", "negated", "quoted"))
    assert not any(row.values.any() for row in corpus if row.kind in ("neutral", "words"))
    assert len({row.answer for row in corpus}) == len(corpus)


@pytest.mark.parametrize("name", ["schwartz", "tone", "inglehart-welzel"])
def test_topics_are_in_one_part_only_and_every_part_has_some(name: str) -> None:
    split = parts(bundled(load_space(name)))
    topics = {part: {row.topic for row in rows} for part, rows in split.items()}
    assert all(topics.values())
    assert not (
        topics["train"] & topics["test"] or topics["train"] & topics["validation"] or topics["test"] & topics["validation"]
    )


def test_a_sentence_is_labelled_with_what_it_carries_alone(corpus: list[Annotated]) -> None:
    row = next(row for row in corpus if [len(places) for places in row.carriers.values()] == [1])
    (name, (place,)), index = next(iter(row.carriers.items())), SCHWARTZ.index
    (example,) = annotated([row], 1)
    assert example.part_targets is not None and example.part_masks is not None
    assert example.part_targets[place, index[name]] == row.values[index[name]]
    assert example.part_masks.all() and example.part_targets.sum() == pytest.approx(row.values.sum())


def test_a_value_that_several_sentences_share_is_not_known_of_each() -> None:
    row = Annotated("", "", "", "Stay safe. Lock up. It is blue.", SCHWARTZ_SECURITY, {"security": (0, 1)}, SCHWARTZ)
    (example,) = annotated([row], 1)
    assert example.part_masks is not None
    assert example.part_masks[:, SCHWARTZ.index["security"]].tolist() == [0, 0, 1]


SCHWARTZ_SECURITY = next(row.values for row in bundled(SCHWARTZ) if list(row.carriers) == ["security"])


@pytest.mark.parametrize(
    "line",
    [
        f'{{"answer": "Yes.", "values": {{}}, "{"k" * 9000}": 1}}',
        '{"answer": "Yes.", "values": {}, "a\\n\\u001b[2Jb": 1}',
        f'{{"answer": "Yes.", "values": {{"{"k" * 9000}": 1}}}}',
        f'{{"answer": "Yes.", "values": {{"security": "{"v" * 9000}"}}}}',
        f'{{"answer": "Yes.", "values": {{"security": {"[" * 900 + "]" * 900}}}}}',
        f'{{"answer": "Yes.", "values": {{}}, "carriers": {{"{"k" * 9000}": [1]}}}}',
        f'{{"answer": "Yes.", "values": {{"security": 1}}, "carriers": {{"security": {list(range(1, 9000))}}}}}',
    ],
)
def test_what_is_wrong_is_quoted_in_one_short_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_annotated(file, SCHWARTZ)
    (problem,) = caught.value.problems
    assert problem.isprintable() and len(problem.removeprefix(str(file))) < 300


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "found a list, allowed: an object"),
        ("[" * 100_000, "no JSON: depth limit exceeded"),
        ('{"answer": "Yes.", "values": {"security": ' + "9" * 5000 + "}}", "no JSON: number is infinity"),
        ('{"answer": "A b \\ud800 c.", "values": {}}', "no JSON: no low surrogate in string"),
        ('{"answer": 1, "values": {}}', "answer: must be a text"),
        ('{"answer": "Yes.", "values": []}', "values, carriers: must be objects"),
        ('{"answer": "Yes.", "values": {"security": true}}', "values.security: found true, allowed: -1 … 1"),
        ('{"answer": "Yes.", "values": {"security": NaN}}', "no JSON: unexpected character"),
        ('{"answer": "Yes.", "values": {"safety": 1}}', "values.safety: no dimension of schwartz"),
        (
            '{"answer": "Yes.", "values": {"security": 1}, "carriers": {"security": [1, 2]}}',
            "found 2, allowed: a list of numbers of",
        ),
        (
            '{"answer": "Yes.", "values": {"security": 1}, "carriers": {"security": 1}}',
            "found 1, allowed: a list of numbers of sentences",
        ),
        ('{"answer": "Yes.", "values": {}, "carriers": {"security": [1]}}', "carriers.security: not among the values"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"answer": "Fine.", "values": {}}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_annotated(file, SCHWARTZ)
    assert f"{file}, line 3: " in str(caught.value) and said in str(caught.value)
