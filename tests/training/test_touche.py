"""Reading Touché23-ValueEval's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.touche import read_touche
from visa_proxy.values import load_space

CATEGORIES = ("Self-direction: thought", "Power: dominance", "Power: resources", "Face", "Universalism: nature")


def write(folder: Path, labels: str) -> None:
    (folder / "touche23-valueeval").mkdir()
    rows = 'Argument ID\tConclusion\tStance\tPremise\nA1\tWe should ban cars\tagainst\tThey are "fast" and mine.\n'
    (folder / "touche23-valueeval" / "arguments-training.tsv").write_text(rows, encoding="utf-8")
    (folder / "touche23-valueeval" / "labels-training.tsv").write_text(labels, encoding="utf-8")


def test_categories_become_the_ten_values(tmp_path: Path) -> None:
    write(tmp_path, "\t".join(["Argument ID", *CATEGORIES]) + "\nA1\t0\t0\t1\t1\t1\n")
    (row,) = read_touche(tmp_path, "training")
    assert (row.query, row.text, row.part) == ("We should ban cars (against)", 'They are "fast" and mine.', "train")
    names = [name for name, level in zip(load_space("schwartz").names, row.target, strict=True) if level]
    assert names == ["universalism", "power"]  # Face is neither


@pytest.mark.parametrize("labels", ["", "Argument ID\tFace\nA2\t1\n"])
def test_other_files_are_refused(tmp_path: Path, labels: str) -> None:
    write(tmp_path, labels)
    with pytest.raises(ConfigError, match="not the files of Touché23-ValueEval"):
        read_touche(tmp_path, "training")


def test_missing_files_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels-training\.tsv: .*zenodo"):
        read_touche(tmp_path, "training")
