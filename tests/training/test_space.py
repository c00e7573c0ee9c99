"""A value space that cannot be trained says so before anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visa_proxy.detector.weights import BUNDLED
from visa_proxy.errors import ConfigError
from visa_proxy.training.space import RECIPE, train_space

SPACE = """\
name: {name}
dimensions:
  - {{name: {first}, title: Thrift, goal: spending little}}
  - {{name: pride, title: Pride, goal: love of the town}}
"""


def answers(file: Path, topic: str = "", count: int = 40) -> Path:
    rows = [
        {"answer": f"Number {i} is cheap and made here.", "values": {"thrift": 1, "pride": (-1) ** i}, "topic": topic}
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def space(folder: Path, name: str = "brand", first: str = "thrift") -> str:
    file = folder / "brand.yaml"
    file.write_text(SPACE.format(name=name, first=first))
    return str(file)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training as it is, but brief: what is asked here is not how well a head learns."""
    monkeypatch.setattr("visa_proxy.training.space.RECIPE", RECIPE.model_copy(update={"seeds": 1, "epochs": 2}))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("topic", ["brand", "shop", "t3", ""])
def test_few_topics_are_split_by_answer(tmp_path: Path, topic: str) -> None:
    lines, file = train_space(space(tmp_path), answers(tmp_path / "a.jsonl", topic), BUNDLED, tmp_path / "out", 0)
    trained, held = (int(word) for word in lines[0].split() if word.isdigit())
    assert trained + held == 40 and trained > held > 0
    assert (tmp_path / "out" / "space.yaml").is_file() and file.is_file()


@pytest.mark.usefixtures("short")
def test_a_bundled_space_in_a_folder_of_its_own(tmp_path: Path) -> None:
    _, file = train_space("tone", None, BUNDLED, tmp_path, 0)
    assert (file.parent / "space.yaml").read_bytes() == (BUNDLED.parents[1] / "values" / "spaces" / "tone.yaml").read_bytes()


@pytest.mark.parametrize(
    ("name", "first", "message"),
    [("brand", "security", "security"), ("schwartz", "thrift", "train detector")],
)
def test_names_of_schwartzs_are_taken(tmp_path: Path, name: str, first: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_space(space(tmp_path, name, first), answers(tmp_path / "a.jsonl"), BUNDLED, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = answers(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"--detector: .*nowhere"):
        train_space(space(tmp_path), file, tmp_path / "nowhere", tmp_path / "out", 0)
    with pytest.raises(ConfigError, match="--out: a folder is needed"):
        train_space(space(tmp_path), file, BUNDLED, None, 0)
    with pytest.raises(ConfigError, match=r"--out: cannot write in the folder .*a\.jsonl: \w"):
        train_space(space(tmp_path), file, BUNDLED, file, 0)
    with pytest.raises(ConfigError, match="5 answers; at least 20 are needed"):
        train_space(space(tmp_path), answers(tmp_path / "few.jsonl", count=5), BUNDLED, tmp_path / "out", 0)
    one_sided = tmp_path / "thrift.jsonl"
    one_sided.write_text("".join(json.dumps({"answer": f"Cheap {i}.", "values": {"thrift": 1}}) + "\n" for i in range(30)))
    with pytest.raises(ConfigError, match="none has a level other than 0 for pride"):
        train_space(space(tmp_path), one_sided, BUNDLED, tmp_path / "out", 0)
