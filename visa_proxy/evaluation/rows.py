"""What was asked and measured: an append-only file of JSON Lines that survives a kill at any moment.

A line is one case of one system under one judge: `key`, `asked` (the same under every judge), `system`, `case`, `judge`; then `text`,
`status` and what the judge measured, or `error`. It counts as done when it is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from visa_proxy.errors import ConfigError

Row = dict[str, Any]
MEASURED: Final = {
    "before": dict,
    "after": dict,
    "consistency": float,
    "forward": float,
    "backward": float,
    "kept": int,
    "spans": int,
    "length": float,
    "changed": bool,
    "fault": str,
}
"""What a row with a text has, and of which type."""


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def read_rows(file: Path) -> tuple[list[Row], int]:
    """All rows, and the bytes up to the end of the last whole line; a torn last line is left out.

    Raises ConfigError naming file and line of any other that is wrong.
    """
    rows: list[Row] = []
    whole = 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    rows.append(_read(line))
                except ValueError as error:
                    if not stream.read(1):
                        break
                    raise ConfigError([f"{file}, line {number}: {error}; allowed: what a run wrote there"]) from error
                whole += len(line)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ConfigError([f"{file}: cannot read it: {error.strerror}"]) from error
    return rows, whole


def _read(line: bytes) -> Row:
    """Raises ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("torn")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("no JSON") from None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("key", "asked", "case")):
        raise ValueError("no row with a key")
    if "error" in row:
        return row
    if not isinstance(row.get("text"), str):
        raise ValueError("neither a text nor an error")
    for name, kind in MEASURED.items():
        if not isinstance(row.get(name), kind if kind is not float else (int, float)):
            raise ValueError(f"no {name}")
    return row


class Rows:
    """The file, opened for one run: `with Rows(file) as rows`. No second run can open it meanwhile."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: BinaryIO | None = None
        self.by_key: dict[str, Row] = {}
        """The last row of each key."""
        self.by_asked: dict[str, Row] = {}
        """The last row with a text of each question, whoever judged it: it need not be asked again."""

    def __enter__(self) -> Self:
        """Raises ConfigError when another run has it, or it cannot be read or written."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._file.open("ab")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rows, whole = read_rows(self._file)
            self._stream.truncate(whole)
            os.fsync(self._stream.fileno())
            _sync_folder(self._file.parent)
        except BlockingIOError as error:
            self._close()
            raise ConfigError([f"{self._file}: another run is writing to it"]) from error
        except OSError as error:
            self._close()
            raise ConfigError([f"{self._file}: cannot write to it: {error.strerror}"]) from error
        except ConfigError:
            self._close()
            raise
        for row in rows:
            self._know(row)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            # What a failed write left in the buffer would fail again.
            with contextlib.suppress(OSError):
                self._stream.close()

    def _know(self, row: Row) -> None:
        self.by_key[row["key"]] = row
        if "error" not in row:
            self.by_asked[row["asked"]] = row

    def add(self, row: Row) -> None:
        """Returns when it is on the disk. Raises ConfigError."""
        assert self._stream is not None
        try:
            self._stream.write(orjson.dumps(row) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise ConfigError([f"{self._file}: cannot write to it: {error.strerror}"]) from error
        self._know(row)


def _sync_folder(folder: Path) -> None:
    """So that a file that is new is there after a power failure too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
