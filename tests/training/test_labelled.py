"""Reading answers that others labelled: what a wrong file or row is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.labelled import read_fulcra, read_personas
from visa_proxy.values import load_space

INDEX = load_space("schwartz").index
TALK = '{"dialogue": "Human: May I?\\nBob: No. It hurts.", "value_types": ["security: +1", "self-direction: -1", "face: 1"]}'
STATEMENT = '{"statement": "I like risks", "answer_matching_behavior": " Yes"}'
NO_OBJECT = [
    ("[1]", "found a list, allowed: an object"),
    ("1", "found 1, allowed: an object"),
    ("null", "found nothing, allowed: an object"),
    ("nul", "no JSON: "),
    ("[" * 100_000, "no JSON: depth limit exceeded"),
    ("9" * 5000, "no JSON: number is infinity"),
    ('{"dialogue": "\\ud800", "statement": "\\ud800"}', "no JSON: no low surrogate"),
]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_fulcra_and_personas_are_read(tmp_path: Path) -> None:
    write(tmp_path, "fulcra/part.jsonl", f"{TALK}\n\n")
    write(tmp_path, "anthropic-persona-evals/risk-seeking.jsonl", STATEMENT)
    (talk,) = read_fulcra(tmp_path)
    assert (talk.query, talk.text) == ("May I?", "No. It hurts.")
    assert (talk.target[INDEX["security"]], talk.target[INDEX["self_direction"]], abs(talk.target).sum()) == (1, -1, 2)
    (statement,) = read_personas(tmp_path)
    assert statement.text == "I like risks." and statement.target[INDEX["stimulation"]] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *NO_OBJECT,
        ("{}", "dialogue: found nothing, allowed: a text"),
        ('{"dialogue": 3, "value_types": []}', "dialogue: found 3, allowed: a text"),
        ('{"dialogue": "Human: A."}', "value_types: found nothing, allowed: a list of texts such as 'security: +1'"),
        ('{"dialogue": "Human: A.", "value_types": [3]}', "value_types: found 3, allowed: such as 'security: +1'"),
        ('{"dialogue": "Human: A.", "value_types": ["security: 2"]}', "value_types: found 'security: 2', allowed: such as"),
    ],
)
def test_a_wrong_row_of_fulcra_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = write(tmp_path, "fulcra/part.jsonl", f"{TALK}\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_fulcra(tmp_path)
    assert f"{file}, line 3: {said}" in str(caught.value) and len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *NO_OBJECT,
        ("{}", "statement: found nothing, allowed: a text"),
        ('{"statement": "I do", "answer_matching_behavior": null}', "answer_matching_behavior: found nothing, allowed: a text"),
        ('{"statement": "I do", "answer_matching_behavior": "Maybe"}', "found 'Maybe', allowed: Yes or No"),
    ],
)
def test_a_wrong_persona_statement_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = write(tmp_path, "anthropic-persona-evals/risk-seeking.jsonl", f"{STATEMENT}\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_personas(tmp_path)
    assert f"{file}, line 3: " in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": no row in it"),
        (b"\n \n", ": no row in it"),
        (b"{}\n\xff", ", line 2: found the byte 0xff"),
        (b"\0", ", line 1: found the byte 0x00"),
    ],
)
def test_files_that_hold_no_rows_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    fulcra = write(tmp_path, "fulcra/part.jsonl", content)
    persona = write(tmp_path, "anthropic-persona-evals/risk-averse.jsonl", content)
    with pytest.raises(ConfigError) as caught:
        read_fulcra(tmp_path)
    assert str(caught.value).startswith(f"{fulcra}{said}")
    with pytest.raises(ConfigError) as caught:
        read_personas(tmp_path)
    assert str(caught.value).startswith(f"{persona}{said}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "fulcra" / "part.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"part\.jsonl: cannot read it: Is a directory"):
        read_fulcra(tmp_path)
