"""`visa-proxy data mini` as a command."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fakes.pages import blocks, files
from visa_proxy.cli.main import cli
from visa_proxy.training.triplets import read_triplets, written

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Answers in dolly's format."""
    answers = {t.query: t.answer for t in written()}
    rows = [{"instruction": query, "context": "", "response": text, "category": "qa"} for query, text in answers.items()]
    (tmp_path / "data" / "dolly").mkdir(parents=True)
    (tmp_path / "data" / "dolly" / "part.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def ran(folder: Path, *more: str, out: str = "mini.jsonl") -> Result:
    return CliRunner().invoke(cli, ["data", "mini", "--data", str(folder / "data"), "--out", str(folder / out), *more])


def test_a_file_and_what_is_in_it(folder: Path) -> None:
    result = ran(folder, "--size", "80", "--seed", "3")
    assert result.exit_code == 0, result.output
    out = folder / "mini.jsonl"
    triplets = read_triplets(out)
    about = json.loads((folder / "mini.jsonl.json").read_text())
    assert [t for t in triplets if t.source == "written"] == written()
    assert len(triplets) - len(written()) == about["size"] == 80
    assert len(triplets) == about["triplets"]
    assert about["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert about["parts"] == {part: sum(t.split == part for t in triplets) for part in ("test", "train", "validation")}
    assert f"wrote {out}: {len(triplets)} triplets (train " in result.output
    assert ran(folder, "--size", "80", "--seed", "3", out="again.jsonl").exit_code == 0
    assert (folder / "again.jsonl").read_bytes() == out.read_bytes()
    assert ran(folder, "--size", "80", "--seed", "4", out="again.jsonl").exit_code == 0
    assert (folder / "again.jsonl").read_bytes() != out.read_bytes()


def test_what_cannot_be_read_or_written_is_named_and_leaves_nothing(folder: Path) -> None:
    (folder / "taken").mkdir()
    for out, said in (
        ("missing/mini.jsonl", "allowed: data that can be read, and an --out that can be written"),
        ("taken", "taken' is a directory"),
    ):
        result = ran(folder, "--size", "2", out=out)
        assert result.exit_code == 2
        assert said in result.output.replace("\n", " ")
    (folder / "data" / "dolly" / "part.json").write_text("[1]")
    result = ran(folder)
    assert result.exit_code == 2
    assert "part.json, record 1: found 1, allowed: an object" in result.output
    assert not list(folder.glob("*.jsonl*"))


def test_the_page_says_what_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = (shlex.split(block.text) for block in blocks(PAGE) if "data mini" in block.text)
    (folder / "data").rename(folder / "DATA")
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli, [*command[1:], "--size", "3"])
    assert result.exit_code == 0, result.output
    assert len(read_triplets(folder / "mini.jsonl")) == 3 + len(written())
    (folder / "triplet.jsonl").write_text(files(PAGE)["triplet.jsonl"], encoding="utf-8")
    (triplet,) = read_triplets(folder / "triplet.jsonl")
    assert list(json.loads((folder / "mini.jsonl").read_text().splitlines()[0])) == list(triplet.to_dict())
