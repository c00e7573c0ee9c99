"""Rows of files: the corpora in this package, and the data sets of others; what is wrong is named with file, line and key."""

from __future__ import annotations

import csv
import importlib.resources
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import orjson

from visa_proxy.errors import ConfigError
from visa_proxy.policy.problems import shown

File = Path | Traversable


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands."""

    place: str
    """ "file, line 3"."""
    data: dict[str, Any]

    def text(self, key: str) -> str:
        """Raises ConfigError where `key` holds anything but a text."""
        value = self.data.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def one_of(self, key: str, *allowed: str) -> str:
        """The text of `key` without white space around it. Raises ConfigError for any other than `allowed`."""
        value = self.text(key).strip()
        if value not in allowed:
            raise self.wrong(key, value, " or ".join(allowed))
        return value

    def wrong(self, key: str, found: Any, allowed: str) -> ConfigError:
        return ConfigError([f"{self.place}: {key}: found {shown(found)}, allowed: {allowed}"])


def row(place: str, data: Any) -> Row:
    """Raises ConfigError for `data` other than an object."""
    if not isinstance(data, dict):
        raise ConfigError([f"{place}: found {shown(data)}, allowed: an object"])
    return Row(place, data)


def bundled(folder: str) -> list[Traversable]:
    """The `*.jsonl` of a folder below `data/` of this package, by name; none where there is no such folder."""
    place = importlib.resources.files("visa_proxy.training").joinpath("data", *folder.split("/"))
    return sorted((f for f in place.iterdir() if f.name.endswith(".jsonl")), key=lambda f: f.name) if place.is_dir() else []


def records(*files: File) -> Iterator[dict[str, Any]]:
    """The object of every line, file by file. Raises ConfigError as `rows` does."""
    return (each.data for each in rows(*files))


def rows(*files: File) -> Iterator[Row]:
    """The rows of JSON Lines, file by file. Raises ConfigError for a file that cannot be read or has no row, and for a line that is wrong."""
    for file in files:
        empty = True
        for number, line in lines(file):
            empty = False
            yield row(f"{file}, line {number}", parse(file, line, number))
        if empty:
            raise ConfigError([f"{file}: no row in it"])


def table(file: Path, columns: tuple[str, ...], *, delimiter: str = "\t", hint: str = "") -> Iterator[Row]:
    """The rows below the header of a table; quotes mean nothing where tabs delimit. `hint`: what to say of a file that cannot be read.

    Raises ConfigError for other than text, a header without `columns`, and a row with more or fewer fields than the header.
    """
    source = io.StringIO(text(file, hint))
    reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL)
    try:
        header = next(reader, [])
        if not set(columns) <= set(header):
            found, needed = shown(delimiter.join(header)), ", ".join(columns)
            raise ConfigError([f"{file}, line 1: found the columns {found}, needed: {needed}"])
        for fields in filter(None, reader):
            if len(fields) != len(header):
                place = f"{file}, line {reader.line_num}"
                raise ConfigError([f"{place}: found {len(fields)} fields, allowed: {len(header)}, as in line 1"])
            yield Row(f"{file}, line {reader.line_num}", dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise ConfigError([f"{file}, line {reader.line_num}: no table: {error}"]) from error


def lines(file: File) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of the lines that are not blank."""
    return ((number, line) for number, line in enumerate(text(file).split("\n"), 1) if line.strip())


def text(file: File, hint: str = "") -> str:
    """What a text file holds. Raises ConfigError naming the line where it is not UTF-8 or has a NUL."""
    try:
        raw = file.read_bytes()
        found = raw.decode("utf-8-sig")
        end = raw.find(b"\0")
    except OSError as error:
        raise ConfigError([f"{file}: cannot read it: {error.strerror or error}{hint}"]) from error
    except UnicodeDecodeError as error:
        end = error.start
    if end < 0:
        return found
    number = raw.count(b"\n", 0, end) + 1
    raise ConfigError([f"{file}, line {number}: found the byte {raw[end]:#04x}, allowed: text in UTF-8"])


def parse(file: File, source: str, line: int = 1) -> Any:
    """The JSON that begins at `line` of `file`. Raises ConfigError, also for what no reader of it could take: lone surrogates, numbers
    beyond a double's, and nesting deeper than 1024."""
    try:
        return orjson.loads(source)
    except orjson.JSONDecodeError as error:
        place = f"{file}, line {line + error.lineno - 1}"
        raise ConfigError([f"{place}: no JSON: {error.msg} (column {error.colno})"]) from error
