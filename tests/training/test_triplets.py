"""The hand-written rewrites of the package, files of triplets, and what games the reward."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from visa_proxy.detector.load import load_detector
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.facts.checks import differences
from visa_proxy.facts.load import load_facts
from visa_proxy.rewriter.prompt import control_line
from visa_proxy.training.labelled import part_of
from visa_proxy.training.triplets import KINDS, Kind, Triplet, degenerate, named, read_triplets, written
from visa_proxy.values import ValueVector, load_space

SCHWARTZ = load_space("schwartz")
ROW: dict[str, Any] = {
    "id": "a",
    "topic": "tea",
    "query": "How?",
    "answer": "Boil it for 3 minutes.",
    "rewrite": "Carefully boil it for 3 minutes.",
    "values_before": {},
    "values_after": {"security": 0.5},
    "target": {"security": 0.5},
    "source": "me",
}


@pytest.fixture(scope="module")
def corpus() -> list[Triplet]:
    return written()


def test_the_corpus_is_spread_over_topics_values_signs_and_levels(corpus: list[Triplet]) -> None:
    assert len(corpus) >= 400
    assert len({t.topic for t in corpus}) >= 100
    cells = Counter((name, level > 0) for t in corpus for name, level in named(t.target).items())
    assert len(cells) == 20
    assert min(cells.values()) >= 28
    assert max(cells.values()) <= 1.2 * min(cells.values())
    assert {level for t in corpus for level in named(t.target).values()} == {-1.0, -0.5, 0.5, 1.0}
    sizes = Counter(len(named(t.target)) for t in corpus)
    assert set(sizes) == {1, 2, 3}
    assert sizes[2] + sizes[3] >= 0.3 * len(corpus)


def test_whole_topics_are_held_out(corpus: list[Triplet]) -> None:
    parts = {part: written(part) for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(corpus)
    assert all(len(rows) >= 30 for rows in parts.values())
    assert all(t.split == part == part_of(f"topic {t.topic}") for part, rows in parts.items() for t in rows)


def test_every_rewrite_is_well_formed(corpus: list[Triplet]) -> None:
    assert len({t.id for t in corpus}) == len({t.rewrite for t in corpus}) == len(corpus)
    for t in corpus:
        assert t.source == "written"
        assert not t.before.array.any()
        assert t.after == t.target
        assert t.query.strip() == t.query != ""
        assert 2 <= len(split_sentences(t.answer)) <= 6, t.id
        assert t.answer.strip() == t.answer != t.rewrite == t.rewrite.strip(), t.id
        assert 1.0 < len(t.rewrite) / len(t.answer) < 2.6, t.id


def test_rewrites_keep_the_facts(corpus: list[Triplet]) -> None:
    wrong = [t.id for t in corpus if any(differences(t.answer, t.rewrite))]
    assert len(wrong) <= 0.01 * len(corpus), wrong


async def test_the_bundled_instruments_agree(corpus: list[Triplet]) -> None:
    facts, detector = load_facts(), load_detector()
    kept: list[float] = []
    gained: list[float] = []
    for t in corpus[::4]:
        kept.append((await facts.compare(t.answer, t.rewrite)).consistency)
        before, after = (await detector.detect(t.query, t.answer)).values, (await detector.detect(t.query, t.rewrite)).values
        gained.append(after.cosine(t.target) - before.cosine(t.target))
    assert sum(consistency >= 0.5 for consistency in kept) >= 0.9 * len(kept)
    assert sum(gained) / len(gained) >= 0.3
    assert sum(gain > 0 for gain in gained) >= 0.7 * len(gained)


def test_no_turn_of_phrase_is_stock(corpus: list[Triplet]) -> None:
    added: Counter[tuple[str, ...]] = Counter()
    for t in corpus:
        added.update(fours(t.rewrite) - fours(t.answer))
    assert added.most_common(1)[0][1] <= 5


def fours(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}


def test_triplets_are_read_as_they_are_written(tmp_path: Path, corpus: list[Triplet]) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(t.to_dict()) for t in corpus), encoding="utf-8")
    assert read_triplets(file) == corpus


def test_a_row_without_a_split_is_where_its_topic_belongs(tmp_path: Path) -> None:
    rows = [ROW | {"id": str(i), "topic": f"t{i}"} for i in range(30)]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert {t.topic: t.split for t in read_triplets(file)} == {f"t{i}": part_of(f"topic t{i}") for i in range(30)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 3}, "answer: found 3, allowed: a text"),
        ({"answer": "  "}, "answer: found '  ', allowed: a text that is not empty"),
        ({"split": "dev"}, "split: found 'dev', allowed: train or validation or test"),
        ({"target": [1]}, "target: found a list, allowed: an object of levels"),
        ({"target": {"greed": 1}}, "target: found 'greed', allowed: universalism, "),
        ({"target": {"power": 2}}, "target.power: found 2, allowed: -1 … 1"),
        ({"values_after": {"power": True}}, "values_after.power: found "),
        ({"targets": {}}, "'targets': unknown key; allowed: "),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW | {'id': 'b'} | change)}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_triplets(file)
    assert str(caught.value).startswith(f"{file}, line 3: {said}")


def test_an_id_that_stands_twice_a_missing_key_and_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    short = {key: value for key, value in ROW.items() if key != "query"}
    file.write_text("\n".join(json.dumps(row) for row in (ROW, ROW, short)), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_triplets(file)
    assert caught.value.problems == [
        f"{file}, line 2: id: 'a' stands in line 1 already; every id must be another",
        f"{file}, line 3: query: found nothing, allowed: a text",
    ]
    file.write_text("\n")
    with pytest.raises(ConfigError, match="no row in it"):
        read_triplets(file)


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_outputs_are_never_the_rewrite_and_follow_from_the_seed(kind: Kind, corpus: list[Triplet]) -> None:
    made = [degenerate(t, kind, random.Random(t.id)) for t in corpus]
    assert made == [degenerate(t, kind, random.Random(t.id)) for t in corpus]
    assert not any(text.strip() == t.rewrite.strip() for text, t in zip(made, corpus, strict=True))


def test_each_kind_is_what_it_says(corpus: list[Triplet]) -> None:
    rng = random.Random(0)
    topics = {t.rewrite: t.topic for t in corpus}
    for t in corpus[::3]:
        assert degenerate(t, "echo", rng) == t.answer
        assert len(degenerate(t, "empty", rng).strip()) <= 1
        assert t.answer in (words := degenerate(t, "words", rng))
        assert len(words) > len(t.answer)
        assert t.rewrite.startswith(half := degenerate(t, "truncated", rng))
        assert len(half) < 0.75 * len(t.rewrite)
        assert topics[degenerate(t, "other", rng)] != t.topic
        leak = degenerate(t, "leak", rng)
        assert t.answer in leak or t.rewrite in leak
        assert any(told in leak for told in (control_line(t.target), *named(t.target), "Answer to rewrite:"))
        sentences = Counter(split_sentences(degenerate(t, "repeated", rng)))
        assert max(sentences.values()) >= 3
        phrase = degenerate(t, "phrase", rng).removeprefix(t.answer)
        assert max(Counter(split_sentences(phrase.strip())).values()) >= 3
        assert t.answer not in degenerate(t, "list", rng)


def test_a_level_between_those_of_the_phrases_and_a_rewrite_that_is_the_answer(corpus: list[Triplet]) -> None:
    t = replace(corpus[0], target=ValueVector.of(SCHWARTZ, {"power": 0.8}), rewrite=corpus[0].answer)
    assert degenerate(t, "echo", random.Random(0)) == ""
    assert degenerate(t, "phrase", random.Random(0)).startswith(t.answer)


def test_a_neutral_target_has_nothing_to_feign(corpus: list[Triplet]) -> None:
    with pytest.raises(ValueError, match="not neutral"):
        degenerate(replace(corpus[0], target=ValueVector.zero(SCHWARTZ)), "words", random.Random(0))
