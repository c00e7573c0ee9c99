"""The journal, as a kill may leave it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.errors import ConfigError
from visa_proxy.training.vcr.annotator import Annotation
from visa_proxy.training.vcr.journal import Entry, Journal, read_journal
from visa_proxy.values import ValueVector, load_space

SPACE = load_space("schwartz")
FIRST = Entry(Annotation(ValueVector.of(SPACE, {"security": 1}), ValueVector.of(SPACE, {"power": -0.5})))
SECOND = Entry(None, "the annotator answered with text that is not JSON")


def written(file: Path) -> bytes:
    with Journal(file, SPACE) as journal:
        journal.add("k1", FIRST, id="1", model="oracle", prompt="v1")
        journal.add("k2", SECOND, id="2", model="oracle", prompt="v1")
        assert journal.entries == {"k1": FIRST, "k2": SECOND}
    return file.read_bytes()


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "annotations.jsonl"
    assert read_journal(file, SPACE) == ({}, 0)
    raw = written(file)
    assert read_journal(file, SPACE) == ({"k1": FIRST, "k2": SECOND}, len(raw))
    first, second = (json.loads(line) for line in raw.splitlines())
    assert first["chosen"]["security"] == 1 and len(first["rejected"]) == 10
    assert second == {"key": "k2", "id": "2", "model": "oracle", "prompt": "v1", "failed": SECOND.failed}


def test_a_line_is_in_the_file_before_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "annotations.jsonl"
    with Journal(file, SPACE) as journal:
        journal.add("k1", FIRST)
        assert read_journal(file, SPACE)[0] == {"k1": FIRST}


def test_the_last_line_of_a_key_counts(tmp_path: Path) -> None:
    file = tmp_path / "annotations.jsonl"
    written(file)
    with Journal(file, SPACE) as journal:
        journal.add("k2", FIRST)
    assert read_journal(file, SPACE)[0] == {"k1": FIRST, "k2": FIRST}


@given(lost=st.integers(1, 10_000), zeros=st.integers(0, 40))
def test_torn_anywhere_the_whole_lines_before_stay(tmp_path_factory: pytest.TempPathFactory, lost: int, zeros: int) -> None:
    file = tmp_path_factory.mktemp("journal") / "annotations.jsonl"
    raw = written(file)
    kept = raw[: max(0, len(raw) - lost)]
    file.write_bytes(kept + b"\0" * zeros)
    whole = kept.count(b"\n")
    expected = dict([("k1", FIRST), ("k2", SECOND)][:whole])
    assert read_journal(file, SPACE) == (expected, kept.rfind(b"\n") + 1)
    with Journal(file, SPACE) as journal:
        assert journal.entries == expected
        journal.add("k3", FIRST)
    assert read_journal(file, SPACE)[0] == {**expected, "k3": FIRST}


WRONG = {
    "no JSON": b"oops\n",
    "no object with a key": b"[1]\n",
    "no level for": b'{"key": "k", "chosen": {}, "rejected": {}}\n',
    "no object of levels": b'{"key": "k"}\n',
}


@pytest.mark.parametrize(("problem", "line"), WRONG.items(), ids=WRONG)
def test_a_wrong_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path: Path, problem: str, line: bytes) -> None:
    file = tmp_path / "annotations.jsonl"
    raw = written(file)
    file.write_bytes(line + raw)
    with pytest.raises(ConfigError, match=f"line 1: {problem}"):
        read_journal(file, SPACE)
    with pytest.raises(ConfigError), Journal(file, SPACE):
        pass
    assert file.read_bytes() == line + raw


def test_two_runs_cannot_write_to_one(tmp_path: Path) -> None:
    file = tmp_path / "annotations.jsonl"
    with (
        Journal(file, SPACE) as journal,
        pytest.raises(ConfigError, match="another run is writing to it"),
        Journal(file, SPACE),
    ):
        pass
    with Journal(file, SPACE) as journal:
        journal.add("k1", FIRST)


def test_a_place_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot write to it"), Journal(Path("/dev/full/annotations.jsonl"), SPACE):
        pass
