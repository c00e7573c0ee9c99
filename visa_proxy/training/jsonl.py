"""Rows of files: the corpora in this package, and the data sets of others; what is wrong is named with file, line and key."""

from __future__ import annotations

import csv
import importlib.resources
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from visa_proxy.errors import ConfigError
from visa_proxy.policy.problems import shown
from visa_proxy.values import Space, ValueVector

MAX_PROBLEMS: Final = 20
"""So many of a file are named."""
File = Path | Traversable
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands."""

    place: str
    """ "file, line 3"."""
    data: dict[str, Any]

    @property
    def within(self) -> str:
        """ "line 3": the place without its file."""
        return self.place.rpartition(", ")[2]

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
        return self.error(f"{key}: found {shown(found)}, allowed: {allowed}")

    def error(self, *problems: str) -> ConfigError:
        """Of `problems` at this place."""
        return ConfigError([f"{self.place}: {problem}" for problem in problems])

    def vector(self, key: str, space: Space, unknown: Callable[[str], str]) -> ValueVector:
        """The levels of `key`; what it does not name is 0. Raises ConfigError with the first that `wrong_levels` finds."""
        for problem in wrong_levels(self.data.get(key), key, space, unknown):
            raise self.error(problem)
        return ValueVector.of(space, self.data[key])


def row(place: str, data: Any) -> Row:
    """Raises ConfigError for `data` other than an object."""
    if not isinstance(data, dict):
        raise ConfigError([f"{place}: found {shown(data)}, allowed: an object"])
    return Row(place, data)


def wrong_levels(found: Any, key: str, space: Space, unknown: Callable[[str], str], most: float = 1.0) -> Iterator[str]:
    """What is wrong with `found` as an object of levels, -most … most, by values of `space`; `unknown` says it of a name that is none."""
    if not isinstance(found, dict):
        yield f"{key}: found {shown(found)}, allowed: an object of levels"
        return
    for name, level in found.items():
        if name not in space.index:
            yield f"{unknown(name)} allowed: {', '.join(space.names)}"
        elif isinstance(level, bool) or not isinstance(level, int | float) or not abs(level) <= most:
            yield f"{key}.{name}: found {shown(level)}, allowed: -{most:g} … {most:g}"


def bundled(folder: str) -> list[Traversable]:
    """The `*.jsonl` of a folder below `data/` of this package, by name; none where there is no such folder."""
    place = importlib.resources.files("visa_proxy.training").joinpath("data", *folder.split("/"))
    return sorted((f for f in place.iterdir() if f.name.endswith(".jsonl")), key=lambda f: f.name) if place.is_dir() else []


def collect(file: File, make: Callable[[Row], Item]) -> list[Item]:
    """What `make`, which raises ConfigError for a row that is wrong, makes of each; [] of a file without rows.

    Raises ConfigError with the first `MAX_PROBLEMS` problems of all rows.
    """
    items: list[Item] = []
    problems: list[str] = []
    for number, line in lines(file):
        try:
            items.append(make(row(f"{file}, line {number}", parse(file, line, number))))
        except ConfigError as error:
            problems += error.problems
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise ConfigError(problems[:MAX_PROBLEMS])
    return items


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
