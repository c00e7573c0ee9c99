"""VCR-mini: deterministic, balanced, split by topic, the facts kept."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.facts.checks import differences
from visa_proxy.shield.preserve import PLACEHOLDER
from visa_proxy.training.labelled import part_of
from visa_proxy.training.phrases import phrases
from visa_proxy.training.triplets import Triplet, named, written
from visa_proxy.training.vcr.mini import LEVELS, MECHANISMS, Counts, Mini, Text, texts
from visa_proxy.values import load_space

SIZE = 600


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Text]:
    """The answers of the hand-written triplets stand for dolly's, beside the annotated corpus."""
    folder = tmp_path_factory.mktemp("data")
    answers = {t.query: t.answer for t in written()}
    answers["The same again?"] = written()[0].answer
    rows = [{"instruction": query, "context": "", "response": text, "category": "qa"} for query, text in answers.items()]
    (folder / "part.json").write_text(json.dumps(rows), encoding="utf-8")
    return texts(folder)


@pytest.fixture(scope="module")
def made(sources: list[Text]) -> list[Triplet]:
    return list(Mini(sources, 0).triplets(SIZE))


def mechanism(triplet: Triplet) -> str:
    return triplet.source.split(":")[1]


def test_both_sources_are_there(sources: list[Text], made: list[Triplet]) -> None:
    assert {text.source for text in sources} == {"dolly", "annotated"}
    assert {t.source.split(":")[2] for t in made} == {"dolly", "annotated"}


def test_the_same_seed_makes_the_same_triplets_and_another_one_others(sources: list[Text], made: list[Triplet]) -> None:
    assert list(Mini(sources, 0).triplets(60)) == made[:60]
    assert {t.rewrite for t in Mini(sources, 1).triplets(60)}.isdisjoint(t.rewrite for t in made[:60])


def test_every_value_is_wanted_about_as_often_at_every_level(made: list[Triplet]) -> None:
    cells = Counter((name, level) for t in made for name, level in named(t.target).items())
    assert set(cells) == {(name, level) for name in load_space("schwartz").names for level in LEVELS}
    assert max(cells.values()) <= 1.5 * min(cells.values())
    sizes = Counter(len(named(t.target)) for t in made)
    assert set(sizes) == {0, 1, 2, 3}
    assert 0.05 * SIZE <= sizes[0] <= 0.2 * SIZE


def test_an_answer_to_two_questions_is_under_one_topic(sources: list[Text]) -> None:
    topics: dict[str, set[str]] = {}
    for text in sources:
        topics.setdefault(text.text, set()).add(text.topic)
    assert len(topics[written()[0].answer]) == 1
    assert all(len(found) == 1 for found in topics.values())


def test_whole_topics_are_held_out(made: list[Triplet]) -> None:
    assert all(t.split == part_of(f"topic {t.topic}") for t in made)
    assert {t.split for t in made} == {"train", "validation", "test"}


def test_phrases_that_are_held_out_are_not_learnt(made: list[Triplet]) -> None:
    held = {p.text for p in phrases("heldout")} - {p.text for p in phrases("train")}
    seen = {part: sum(any(text in t.rewrite for text in held) for t in made if t.split == part) for part in ("train", "test")}
    assert seen["train"] == 0 < seen["test"]


def test_texts_are_whole_and_keep_their_facts(made: list[Triplet]) -> None:
    assert len({t.id for t in made}) == SIZE
    for t in made:
        assert t.answer != t.rewrite
        assert t.after == t.target
        assert not PLACEHOLDER.search(t.answer + t.rewrite)
        assert not any(differences(t.answer, t.rewrite)), t.id


def test_what_is_carried_and_wanted_is_what_the_mechanism_says(made: list[Triplet]) -> None:
    assert set(map(mechanism, made)) == set(MECHANISMS)
    for t in made:
        before, after = named(t.before), named(t.target)
        match mechanism(t):
            case "insert" | "woven":
                assert after
                assert not before
                assert len(t.rewrite) > len(t.answer)
            case "removal":
                assert after.items() < before.items()
                assert len(t.rewrite) < len(t.answer)
            case "intensity":
                assert all(before[name] * level == 0.5 for name, level in after.items())
            case "exchange":
                assert len(before) == len(after)
                assert all(before.get(name, 0) * level <= 0 for name, level in after.items())


def test_counts_say_what_there_is(made: list[Triplet]) -> None:
    counts = Counts()
    assert list(counts.counted(made)) == made
    found = counts.to_dict()
    assert found["triplets"] == sum(found["parts"].values()) == sum(found["sources"].values()) == SIZE
    assert found["levels"]["power"]["-0.5"] == sum(t.target["power"] == -0.5 for t in made)
    assert found["topics"]["test"] == len({t.topic for t in made if t.split == "test"})


def test_where_no_text_has_room_it_says_so(sources: list[Text], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.training.vcr.mini.TRIES", 0)
    with pytest.raises(ConfigError, match=f"--data: {len(sources)} neutral texts, .* none with room for values"):
        next(Mini(sources, 0).triplets(1))
