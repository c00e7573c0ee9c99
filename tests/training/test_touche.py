"""Reading Touché23-ValueEval's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.touche import read_touche
from visa_proxy.values import load_space

CATEGORIES = ("Self-direction: thought", "Power: dominance", "Power: resources", "Face", "Universalism: nature")


ARGUMENTS = 'Argument ID\tConclusion\tStance\tPremise\nA1\tWe should ban cars\tagainst\tThey are "fast" and mine.\n'
LABELS = "Argument ID\tStimulation\nA1\t1\n"


def write(folder: Path, labels: str, arguments: str = ARGUMENTS) -> None:
    (folder / "touche23-valueeval").mkdir()
    (folder / "touche23-valueeval" / "arguments-training.tsv").write_text(arguments, encoding="utf-8")
    (folder / "touche23-valueeval" / "labels-training.tsv").write_text(labels, encoding="utf-8")


def test_categories_become_the_ten_values(tmp_path: Path) -> None:
    write(tmp_path, "\t".join(["Argument ID", *CATEGORIES]) + "\nA1\t0\t0\t1\t1\t1\n")
    (row,) = read_touche(tmp_path, "training")
    assert (row.query, row.text, row.part) == ("We should ban cars (against)", 'They are "fast" and mine.', "train")
    names = [name for name, level in zip(load_space("schwartz").names, row.target, strict=True) if level]
    assert names == ["universalism", "power"]  # Face is neither


@pytest.mark.parametrize(
    ("labels", "arguments", "said"),
    [
        ("", ARGUMENTS, "labels-training.tsv, line 1: found the columns '', needed: Argument ID"),
        ("hello", ARGUMENTS, "labels-training.tsv, line 1: found the columns 'hello', needed: Argument ID"),
        (
            LABELS,
            "hello",
            "arguments-training.tsv, line 1: found the columns 'hello', needed: Argument ID, Conclusion, Stance, Premise",
        ),
        (LABELS, ARGUMENTS.splitlines()[0], "arguments-training.tsv: no argument in it"),
        ("Argument ID\tFace\nA2\t1\n", ARGUMENTS, "arguments-training.tsv, line 2: Argument ID: found 'A1', allowed: those of"),
        ("Argument ID\tFace\nA1\t1\n", ARGUMENTS, "labels-training.tsv, line 1: no column for a value, allowed: such as 'Power"),
        ("Argument ID\tStimulation\nA1\t7\n", ARGUMENTS, "labels-training.tsv, line 2: Stimulation: found '7', allowed: 0 or 1"),
        ("Argument ID\tStimulation\nA1\n", ARGUMENTS, "labels-training.tsv, line 2: found 1 fields, allowed: 2, as in line 1"),
        ("Argument ID\nA1\t1\n", ARGUMENTS, "labels-training.tsv, line 2: found 2 fields, allowed: 1, as in line 1"),
        (LABELS, f"{ARGUMENTS}\nA2\tWe should \0\tagainst\tNo.\n", "line 4: found the byte 0x00, allowed: text in UTF-8"),
        (LABELS, f"{ARGUMENTS}A2\tWe should\tagainst\t{'N' * 140_000}\n", "line 3: no table: field larger than field limit"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, labels: str, arguments: str, said: str) -> None:
    write(tmp_path, labels, arguments)
    with pytest.raises(ConfigError) as caught:
        read_touche(tmp_path, "training")
    assert said in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_missing_files_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels-training\.tsv: .*zenodo"):
        read_touche(tmp_path, "training")
