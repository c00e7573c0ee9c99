"""Neutral English: answers of databricks-dolly-15k, cut into windows a rewriter sees in serving.

The data set is read from a folder the caller names (`--data`); nothing of it is bundled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.policy.problems import shown
from visa_proxy.training import jsonl

Split = Literal["all", "train", "heldout"]
HELDOUT_SHARE: Final = 0.05
WORDS: Final = (20, 120)
SENTENCES: Final = (2, 6)

_LIST: Final = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)])[ \t]+\S")
_BULLET: Final = re.compile(r"^([ \t]*)•[ \t]*", re.MULTILINE)
_ODD: Final = re.compile(r"[^\x20-\x7e\n‘’“”–—…°€£éèêáàâíóöüñçäß]|(.)\1{4,}|\[\d+\]")


@dataclass(frozen=True)
class Answer:
    """One window of one answer, as an assistant might have written it."""

    instruction: str
    context: str
    """The passage the instruction is about; often empty."""
    text: str
    """2-6 sentences, 20-120 words; line breaks and list markers are kept."""


def read_dolly(data_dir: Path, split: Split = "all") -> list[Answer]:
    """The windows of `data_dir/dolly/*.json` (or `data_dir/*.json`), in a fixed order; `split` goes by the instruction's hash.

    Raises ConfigError when no such file is there, one is not dolly's, or none of its answers can be used.
    """
    answers: list[Answer] = []
    records = dolly_records(data_dir)
    for record in records:
        if split in ("all", split_of(record["instruction"])):
            instruction, context = record["instruction"].strip(), record["context"].strip()
            answers += [Answer(instruction, context, text) for text in windows(record["response"])]
    if not answers:
        kind = "" if split == "all" else f" of those for {split}"
        raise ConfigError(
            [
                f"{data_dir}: dolly: 0 usable answers{kind} in {len(records)} records, at least 1 is needed: "
                f"of {WORDS[0]}-{WORDS[1]} words in {SENTENCES[0]}-{SENTENCES[1]} sentences"
            ]
        )
    return answers


def dolly_records(data_dir: Path) -> list[dict[str, str]]:
    """The unique raw records (instruction, context, response, category), sorted by the hash of their text."""
    folder = data_dir / "dolly" if (data_dir / "dolly").is_dir() else data_dir
    files = sorted(folder.glob("*.json")) + sorted(folder.glob("*.jsonl"))
    if not files:
        raise ConfigError([f"{folder}: no *.json here; put databricks/databricks-dolly-15k (CC BY-SA 3.0) into {data_dir}/dolly"])
    unique: dict[bytes, dict[str, str]] = {}
    for file in files:
        for record in _records(file):
            unique[hashlib.sha256(f"{record['instruction']}\0{record['response']}".encode()).digest()] = record
    return [unique[key] for key in sorted(unique)]


def _records(file: Path) -> list[dict[str, str]]:
    if file.suffix == ".jsonl":
        rows = list(jsonl.rows(file))
    else:
        data = jsonl.parse(file, jsonl.text(file))
        if not isinstance(data, list) or not data:
            raise ConfigError([f"{file}: found {'an empty list' if data == [] else shown(data)}, allowed: a list of records"])
        rows = [jsonl.row(f"{file}, record {number}", record) for number, record in enumerate(data, 1)]
    return [{key: row.text(key) for key in ("instruction", "context", "response", "category")} for row in rows]


def split_of(key: str) -> Split:
    """ "heldout" for 5 % of all keys, by hash, whatever else is in the data set."""
    number = int.from_bytes(hashlib.sha256(key.strip().encode()).digest()[:4], "big")
    return "heldout" if number < HELDOUT_SHARE * 2**32 else "train"


def windows(response: str) -> Iterator[str]:
    """Non-overlapping windows of whole paragraphs where they fit, else of whole sentences; unclean text gives none."""
    text = clean(response)
    if _ODD.search(text):
        return
    window: list[str] = []
    for piece in _pieces(text):
        joined = "".join([*window, piece]).strip()
        if window and (len(joined.split()) > WORDS[1] or len(split_sentences(joined)) > SENTENCES[1]):
            yield from _kept("".join(window))
            window = []
        window.append(piece)
    yield from _kept("".join(window))


def clean(text: str) -> str:
    """One kind of line end, no runs of blanks, no trailing blanks, at most one empty line, "-" for bullets."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").replace("\t", " ")
    text = _BULLET.sub(r"\1- ", text)
    text = re.sub(r"(?<=\S) {2,}", " ", text)
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _pieces(text: str) -> Iterator[str]:
    """Sentences with the white space after them; a list is one piece together with the line that introduces it."""
    block = ""
    for line in text.splitlines(keepends=True):
        if _LIST.match(line) or not line.strip():
            block += line
            continue
        sentences = split_sentences(line)
        if block and not block.rstrip().endswith(":"):
            yield block
            block = ""
        for number, sentence in enumerate(sentences):
            last = number == len(sentences) - 1
            block += sentence + ("\n" if last and line.endswith("\n") else "" if last else " ")
            if not last:
                yield block
                block = ""
    if block:
        yield block


def _kept(window: str) -> Iterator[str]:
    text = window.strip()
    words = len(text.split())
    prose = any(line.rstrip().endswith((".", "!", "?")) for line in text.split("\n"))
    if WORDS[0] <= words <= WORDS[1] and SENTENCES[0] <= len(split_sentences(text)) <= SENTENCES[1] and prose:
        yield text
