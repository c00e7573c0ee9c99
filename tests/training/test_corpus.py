"""Reading dolly and the public NLI sets: what files that hold something else are told, and what too few answers are."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.facts_data import Perturber, read_conjnli, read_mnli, read_snli, sentences_of, synthetic_pairs

LONG = "Cats that live in cities often sleep for most of the day. "
RECORD = {"instruction": "Why?", "context": "", "response": LONG * 3, "category": "qa"}
MNLI = 'For the statement, ""A cat"", does the hypothesis ""B"" represent entailment, contradiction, or neutrality?'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.json", b"[\n\xff]", ", line 2: found the byte 0xff, allowed: text in UTF-8"),
        ("d.json", b"{}", ": found a mapping, allowed: a list of records"),
        ("d.json", b"[]", ": found an empty list, allowed: a list of records"),
        ("d.json", b"[1]", ", record 1: found 1, allowed: an object"),
        ("d.json", b"[\n[}", ", line 2: no JSON: "),
        ("d.json", b"[" * 100_000, ", line 1: no JSON: depth limit exceeded"),
        ("d.jsonl", b"\n[]", ", line 2: found a list, allowed: an object"),
        ("d.jsonl", b"", ": no row in it"),
        *(
            ("d.json", json.dumps([RECORD, RECORD | {k: v}]).encode(), f", record 2: {k}: found ")
            for k in RECORD
            for v in (None, 3)
        ),
        ("d.jsonl", json.dumps({"instruction": "Why?"}).encode(), ", line 1: context: found nothing, allowed: a text"),
    ],
)
def test_what_is_not_dolly_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_dolly(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}{said}")


def test_a_folder_is_no_file_of_dolly(tmp_path: Path) -> None:
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ConfigError, match=r"d\.json: cannot read it: Is a directory"):
        read_dolly(tmp_path)


def test_dolly_without_a_usable_answer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([RECORD | {"response": "No."}]))
    with pytest.raises(ConfigError, match=r"dolly: 0 usable answers in 1 records, at least 1 is needed: of 20-120 words"):
        read_dolly(tmp_path)
    (tmp_path / "d.json").write_text(json.dumps([RECORD]))
    assert len(read_dolly(tmp_path)) == 1
    with pytest.raises(ConfigError, match=r"0 usable answers of those for heldout in 1 records"):
        read_dolly(tmp_path, "heldout")


@pytest.mark.parametrize("documents", [[], [["A cat sleeps all day."]] * 5])
def test_too_few_answers_for_pairs_are_counted(documents: list[list[str]]) -> None:
    with pytest.raises(
        ConfigError, match=rf"{len(documents)} usable answers, 0 of them with 3-6 sentences .*at least 1 of these"
    ):
        list(synthetic_pairs(documents, "train", 0, 5))


def test_one_answer_without_a_short_sentence_is_enough_for_pairs(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([RECORD]))
    documents = sentences_of(read_dolly(tmp_path))
    assert len(list(synthetic_pairs(documents, "train", 0, 5))) > 10
    perturber = Perturber(documents[0], "train")
    changes = [change for seed in range(20) for change in perturber.changes(LONG.strip(), [], random.Random(seed))]
    assert changes and not any(change.kind == "added" for change in changes)


SNLI, MNLI_FILE, CONJNLI = "e-snli/labels.dev", "mnli-llmsknow/mnli_train.csv", "conjnli/adversarial_train_15k.tsv"
READERS: dict[str, Callable[[Path], Any]] = {
    SNLI: lambda data: read_snli(data, "dev"),
    MNLI_FILE: lambda data: read_mnli(data, "train"),
    CONJNLI: read_conjnli,
}


@pytest.fixture
def public(tmp_path: Path) -> Path:
    for name in READERS:
        (tmp_path / name).parent.mkdir()
    for name in ("s1.dev", "s2.dev"):
        (tmp_path / "e-snli" / name).write_text("A cat sleeps .\nA dog runs .\n")
    (tmp_path / SNLI).write_text("entailment\r\nneutral\r\n")
    (tmp_path / MNLI_FILE).write_text(f'\ufeffQuestion,Answer,Origin\n"{MNLI}",neutral,mnli\n', encoding="utf-8")
    (tmp_path / CONJNLI).write_text("\ufeffPremise\tHypothesis\tLabel\nA.\tB.\tentailment\n", encoding="utf-8")
    return tmp_path


def test_public_pairs_are_read(public: Path) -> None:
    found = {name: [(pair.premise, pair.hypothesis, pair.label) for pair in reader(public)] for name, reader in READERS.items()}
    assert found[SNLI] == [(("A cat sleeps.",), "A cat sleeps.", 1), (("A dog runs.",), "A dog runs.", 0)]
    assert found[MNLI_FILE] == [(("A cat",), "B", 0)] and found[CONJNLI] == [(("A.",), "B.", 1)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        *((name, b"Question,Answer\n\x89PNG\xff", ", line 2: found the byte 0x89, allowed: text in UTF-8") for name in READERS),
        *((name, b"\0\0", ", line 1: found the byte 0x00") for name in READERS),
        (SNLI, b"entailment\nmaybe\n", ", line 2: label: found 'maybe', allowed: entailment or neutral or contradiction"),
        (MNLI_FILE, b"", ", line 1: found the columns '', needed: Question, Answer"),
        (MNLI_FILE, b"hello\nA\n", ", line 1: found the columns 'hello', needed: Question, Answer"),
        (MNLI_FILE, b"Question,Answer\nWhy?,neutral\n", ", line 2: Question: found 'Why?', allowed: For the statement"),
        (MNLI_FILE, b"Question,Answer\nWhy?\n", ", line 2: found 1 fields, allowed: 2, as in line 1"),
        (MNLI_FILE, f'Question,Answer\n"{MNLI}",yes\n'.encode(), ", line 2: Answer: found 'yes', allowed: entailment or"),
        (MNLI_FILE, b"Question,Answer\n" + b"Q" * 140_000, ", line 2: no table: field larger than field limit (131072)"),
        (CONJNLI, b"hello\n", ", line 1: found the columns 'hello', needed: Premise, Hypothesis, Label"),
        (CONJNLI, b"Premise\tHypothesis\tLabel\nA.\tB.\tx\n", ", line 2: Label: found 'x', allowed: entailment or"),
    ],
)
def test_what_is_no_public_set_is_refused(public: Path, name: str, content: bytes, said: str) -> None:
    (public / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        READERS[name](public)
    assert str(caught.value).startswith(f"{public / name}{said}")


def test_columns_of_unequal_length_are_refused(public: Path) -> None:
    (public / SNLI).write_text("entailment\n")
    with pytest.raises(ConfigError, match=r"labels\.dev: found \[2, 2, 1\] lines, allowed: as many in each"):
        read_snli(public, "dev")


@pytest.mark.parametrize("name", READERS)
def test_a_missing_set_says_what_names_its_folder(public: Path, name: str) -> None:
    (public / name).unlink()
    with pytest.raises(ConfigError, match=r"cannot read it: No such file or directory; --data names the folder that holds it"):
        READERS[name](public)
