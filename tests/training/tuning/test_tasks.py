"""Rows to tasks: three shapes, what is wrong named by row and key, and nothing of a test part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tuning import some, triplets_file, write_rows
from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policy
from visa_proxy.training.triplets import written
from visa_proxy.training.tuning.tasks import for_tenant, parted, read_tasks

SAMPLE = {
    "id": "1/positive",
    "kind": "positive",
    "prompt": "Q?",
    "source": "Old.",
    "target": {"power": 1},
    "rewritten": "New.",
    "delta": {},
}
ASKED = {"query": "Q?", "answer": "An answer.", "instruction": "Be bolder."}
ACME = Path(__file__).parents[3] / "policies" / "acme-outdoors.yaml"


def test_triplets(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [t.to_dict() for t in written()])
    tasks = read_tasks(file, need_rewrite=True)
    assert {t.id for t in tasks} == {t.id for t in written() if t.split != "test"}
    first = tasks[0]
    assert first.target is not None and first.target.mode == "target" and first.rewrite and not first.instruction


def test_samples_of_the_builder_by_file(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("validation", 2), ("test", 4)):
        write_rows(tmp_path / f"{part}.jsonl", [{**SAMPLE, "id": f"{part}-{i}"} for i in range(count)])
    tasks = read_tasks(tmp_path, need_rewrite=True)
    assert [(t.id, t.part, t.rewrite) for t in tasks][2:4] == [
        ("train-2", "train", "New."),
        ("validation-0", "validation", "New."),
    ]
    assert len(tasks) == 5
    train, held = parted(tasks, 1)
    assert ([t.part for t in train], [t.part for t in held]) == (["train"] * 3, ["validation"])


def test_instructions(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "i.jsonl", [{**ASKED, "query": f"Question {i}?"} for i in range(40)])
    tasks = read_tasks(file)
    assert {t.part for t in tasks} == {"train", "validation"} and all(t.target is None and t.instruction for t in tasks)
    with pytest.raises(ConfigError, match=r"i.jsonl, line 1: rewrite: required key is missing"):
        read_tasks(file, need_rewrite=True)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**SAMPLE, "target": {"powr": 1}}, "line 2: target.powr: no such value"),
        ({**SAMPLE, "target": {"power": 3}}, "line 2: target.power: found 3, allowed: -1 … 1"),
        ({**SAMPLE, "target": None}, "line 2: target: found nothing, allowed: an object of levels"),
        ({**SAMPLE, "source": " "}, "line 2: source: found ' ', allowed: a text that is not empty"),
        ({**SAMPLE, "id": "first"}, "line 2: id: 'first' stands above already"),
        ([], "line 2: found a list, allowed: an object"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, said: str) -> None:
    file = write_rows(tmp_path / "s.jsonl", [{**SAMPLE, "id": "first"}, row])
    with pytest.raises(ConfigError) as caught:
        read_tasks(file)
    assert f"{file}, {said}" in caught.value.problems[0]


def test_a_wrong_triplet_is_named(tmp_path: Path) -> None:
    rows = [t.to_dict() for t in some(8)]
    rows[3]["target"] = {"bravery": 1}
    with pytest.raises(ConfigError, match=r"line 4: target: found 'bravery'"):
        read_tasks(write_rows(tmp_path / "t.jsonl", rows))


def test_no_data(tmp_path: Path) -> None:
    for place, said in ((tmp_path, "no train.jsonl here"), (write_rows(tmp_path / "e.jsonl", []), "no row in it")):
        with pytest.raises(ConfigError, match=said):
            read_tasks(place)
    held = [t.to_dict() for t in written("test")][:3]
    with pytest.raises(ConfigError, match="no row to train on"):
        read_tasks(write_rows(tmp_path / "h.jsonl", held))


def test_a_tenants_tasks_are_its_profiles(tmp_path: Path) -> None:
    tasks = read_tasks(triplets_file(tmp_path / "t.jsonl", 12))
    tenant = load_policy(ACME)
    found = for_tenant(tasks, tenant)
    assert len(found) == 3 * len({(t.query, t.answer) for t in tasks})
    bold, expedition, green = found[:3]
    assert [t.id.rpartition("/")[2] for t in found[:3]] == ["bold", "expedition", "green"]
    assert bold.target is not None and (bold.target.mode, bold.target.values["stimulation"]) == ("offset", 1.0)
    assert expedition.target is not None and expedition.target.values["security"] == 1.0
    assert green.target is None and "nature" in green.instruction
    assert not any(t.rewrite for t in found)


def test_held_out_answers_are_not_trained_on(tmp_path: Path) -> None:
    rows = [{**SAMPLE, "id": str(i), "source": f"Answer {i // 2}."} for i in range(60)]
    train, held = parted(read_tasks(write_rows(tmp_path / "s.jsonl", rows)), 4)
    assert len(held) == 4 and not {t.answer for t in train} & {t.answer for t in held} and len(train) >= 50
    assert parted([*train, *held], 0)[1] == []
