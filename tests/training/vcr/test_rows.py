"""Preference data in both shapes, and what wrong rows are told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.annotator import write_rows
from visa_proxy.errors import ConfigError
from visa_proxy.training.vcr.rows import Pair, read_preferences

PAIR = {"prompt": "Shall I?", "chosen": "Yes.", "rejected": "No.", "explanation": " Bolder. "}


def conversation(**changes: Any) -> dict[str, Any]:
    """Two turns: four answers, then three."""
    row: dict[str, Any] = {"conversation_id": 7, "assigned_lang": "en", "annotator_id": "x9", "third_turn_prompt": None}
    for turn, letters, preferred in (("first", "abcd", "c"), ("second", "abc", "a")):
        row[f"{turn}_turn_prompt"] = f"{turn}?"
        row[f"{turn}_turn_preferred_response"] = f"response_{preferred}"
        row |= {f"{turn}_turn_response_{letter}": f"{turn} {letter}" for letter in letters}
    row["second_turn_response_d"] = None
    row["first_turn_explanation"] = "c is warmer"
    return row | changes


def problems(tmp_path: Path, *rows: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_preferences(write_rows(tmp_path / "rows.jsonl", list(rows)))
    return caught.value.problems


def test_a_pair_has_the_id_it_came_with_or_one_by_its_content(tmp_path: Path) -> None:
    other = {**PAIR, "id": 12, "prompt": "Should I?"}
    found = read_preferences(write_rows(tmp_path / "rows.jsonl", [PAIR, other, PAIR]))
    first, second = found.pairs
    assert first == Pair(first.digest[:16], "Shall I?", "Yes.", "No.", "Bolder.")
    assert (second.id, found.skipped) == ("12", {"repeated": 1})
    assert Pair("another id", "Shall I?", "Yes.", "No.", "Bolder.").digest == first.digest
    for change in ({"chosen": "Ye"}, {"prompt": "Shall I?Y", "chosen": "es."}, {"explanation": ""}):
        (changed,) = read_preferences(write_rows(tmp_path / "other.jsonl", [PAIR | change])).pairs
        assert changed.digest != first.digest


@pytest.mark.parametrize("zipped", [False, True])
def test_every_turn_of_a_conversation_pairs_the_preferred_answer_with_each_other(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / ("rows.jsonl.gz" if zipped else "rows.jsonl")
    lines = "".join(json.dumps(row) + "\n" for row in (conversation(), conversation(assigned_lang="fr")))
    file.write_bytes(gzip.compress(lines.encode()) if zipped else b"\xef\xbb\xbf" + lines.encode())
    found = read_preferences(file)
    assert [(p.id, p.prompt, p.chosen, p.rejected, p.explanation) for p in found.pairs] == [
        ("7/first/a", "first?", "first c", "first a", "c is warmer"),
        ("7/first/b", "first?", "first c", "first b", "c is warmer"),
        ("7/first/d", "first?", "first c", "first d", "c is warmer"),
        ("7/second/b", "second?", "second a", "second b", ""),
        ("7/second/c", "second?", "second a", "second c", ""),
    ]
    assert found.skipped == {"another language": 1}
    assert len(read_preferences(file, lang="fr").pairs) == 5


def test_the_column_of_the_explanation_is_a_parameter(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [conversation(why_second="kinder")])
    found = read_preferences(file, explanation_column="why_{turn}")
    assert [pair.explanation for pair in found.pairs] == ["", "", "", "kinder", "kinder"]
    with pytest.raises(ConfigError, match=r"--explanation-column: found 'why'; allowed: a name with \{turn\}"):
        read_preferences(file, explanation_column="why")


def test_what_gives_no_pair_is_counted(tmp_path: Path) -> None:
    rows = [conversation(second_turn_preferred_response=None), {**PAIR, "rejected": "Yes. "}]
    found = read_preferences(write_rows(tmp_path / "rows.jsonl", rows))
    assert (len(found.pairs), found.skipped) == (3, {"equal answers": 1, "no preference": 1})
    assert problems(tmp_path, {**PAIR, "rejected": "Yes."})[0].endswith("rows.jsonl: no pair in it (equal answers: 1)")
    assert problems(tmp_path)[0].endswith("no pair in it")


WRONG: dict[str, tuple[Any, str]] = {
    "list": ([1], "the line: found a list; allowed: an object"),
    "missing": ({k: v for k, v in PAIR.items() if k != "chosen"}, "chosen: found nothing; allowed: a text that is not blank"),
    "blank": ({**PAIR, "prompt": " \n"}, "prompt: found a blank text; allowed: a text that is not blank"),
    "number": ({**PAIR, "rejected": 4}, "rejected: found a number; allowed: a text that is not blank"),
    "explanation": ({**PAIR, "explanation": None}, "explanation: found nothing; allowed: a text, which may be empty"),
    "id": ({**PAIR, "id": [1]}, "id: found a list; allowed: a text or a whole number"),
    "unknown": (
        {**PAIR, "reason": "x"},
        "reason: found a key that is not known; allowed: chosen, explanation, id, prompt, rejected",
    ),
    "language": (conversation(assigned_lang=None), "assigned_lang: found nothing; allowed: a language, such as en"),
    "conversation": (conversation(conversation_id=""), "conversation_id: found a blank text; allowed: a text or a whole number"),
    "preferred": (
        conversation(first_turn_preferred_response="response_e"),
        "first_turn_preferred_response: found 'response_e'; allowed: response_a, response_b, response_c, response_d",
    ),
    "long": (
        conversation(second_turn_preferred_response="I liked the rope best"),
        "second_turn_preferred_response: found a text of 21 characters; allowed: response_a, response_b, response_c, response_d",
    ),
    "absent": (
        conversation(first_turn_response_c=None),
        "first_turn_response_c: found nothing; allowed: a text that is not blank",
    ),
    "reasons": (
        conversation(first_turn_explanation=["x"]),
        "first_turn_explanation: found a list; allowed: a text, which may be empty",
    ),
}


@pytest.mark.parametrize(("row", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, problem: str) -> None:
    found = problems(tmp_path, PAIR, row)
    assert found[0] == f"{tmp_path / 'rows.jsonl'}, line 2: {problem}"
    assert "rope" not in "".join(found)


def test_all_wrong_rows_are_named_up_to_twenty(tmp_path: Path) -> None:
    found = problems(tmp_path, *[{**PAIR, "prompt": i} for i in range(33)])
    assert len(found) == 21 and "line 20: prompt" in found[19] and found[20] == "… and 13 more"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for raw, problem in ((b'{"prompt": "x', "line 1: the line: found no JSON"), (b'{"prompt": "\xff"}\n', "line 1: the line")):
        file.write_bytes(raw)
        with pytest.raises(ConfigError, match=problem):
            read_preferences(file)
    for name in ("absent.jsonl", "torn.jsonl.gz"):
        (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
        with pytest.raises(ConfigError, match="cannot read it"):
            read_preferences(tmp_path / name)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visa_proxy.training.vcr.rows.MAX_LINE_BYTES", 50)
    with pytest.raises(ConfigError, match="line 1: longer than 50 bytes"):
        read_preferences(write_rows(tmp_path / "rows.jsonl", [PAIR]))
