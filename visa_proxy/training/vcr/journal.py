"""What the annotator said, pair by pair: an append-only file that survives a kill at any moment.

A line is `{"key", "id", "model", "prompt", "chosen": {…}, "rejected": {…}}`, or has `"failed": "why"` for levels; no text of anybody. A pair
counts as done when its line is on the disk. At a kill, what had been asked and not written is at most what was in flight.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from visa_proxy.errors import ConfigError
from visa_proxy.training.vcr.annotator import CHOSEN, REJECTED, Annotation
from visa_proxy.values import Space
from visa_proxy.values.levels import read_levels


@dataclass(frozen=True)
class Entry:
    """One line."""

    annotation: Annotation | None
    """None: it was answered, and the answer could not be read."""
    failed: str = ""


def read_journal(file: Path, space: Space) -> tuple[dict[str, Entry], int]:
    """Key to entry, where the last line of a key counts; and the bytes up to the end of the last whole line.

    A torn last line is left out. Raises ConfigError naming file and line of any other that is wrong.
    """
    entries: dict[str, Entry] = {}
    whole = number = 0
    try:
        with file.open("rb") as stream:
            for line in stream:
                number += 1
                try:
                    key, entry = _read(line, space)
                except ValueError as error:
                    if not stream.read(1):
                        break
                    raise ConfigError([f"{file}, line {number}: {error}; allowed: what a run wrote there"]) from error
                entries[key] = entry
                whole += len(line)
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise ConfigError([f"{file}: cannot read it: {error.strerror}"]) from error
    return entries, whole


def _read(line: bytes, space: Space) -> tuple[str, Entry]:
    """Raises ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("torn")
    try:
        data: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("no JSON") from None
    key = data.get("key") if isinstance(data, dict) else None
    if not isinstance(key, str):
        raise ValueError("no object with a key")
    if isinstance(failed := data.get("failed"), str):
        return key, Entry(None, failed)
    return key, Entry(Annotation(read_levels(space, data.get(CHOSEN)), read_levels(space, data.get(REJECTED))))


class Journal:
    """The file, opened for one run: `with Journal(file, space) as journal`. No second run can open it meanwhile."""

    def __init__(self, file: Path, space: Space) -> None:
        self._file = file
        self._space = space
        self._stream: BinaryIO | None = None
        self.entries: dict[str, Entry] = {}
        """Those of the file when it was opened, and what was added since."""

    def __enter__(self) -> Self:
        """Raises ConfigError when another run has it, or it cannot be read or written."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._file.open("ab")
            _lock(self._stream, self._file)
            self.entries, whole = read_journal(self._file, self._space)
            self._stream.truncate(whole)
            os.fsync(self._stream.fileno())
            _sync_folder(self._file.parent)
        except OSError as error:
            self._close()
            raise ConfigError([f"{self._file}: cannot write to it: {error.strerror}"]) from error
        except ConfigError:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            # What a failed write left in the buffer would fail again.
            with contextlib.suppress(OSError):
                self._stream.close()

    def add(self, key: str, entry: Entry, **about: str) -> None:
        """Returns when the line is on the disk. `about`: what else the line says. Raises ConfigError."""
        assert self._stream is not None
        data: dict[str, Any] = {"key": key, **about}
        if entry.annotation is None:
            data["failed"] = entry.failed
        else:
            data |= {CHOSEN: entry.annotation.chosen.to_dict(), REJECTED: entry.annotation.rejected.to_dict()}
        try:
            self._stream.write(orjson.dumps(data) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise ConfigError([f"{self._file}: cannot write to it: {error.strerror}"]) from error
        self.entries[key] = entry


def _lock(stream: BinaryIO, file: Path) -> None:
    """Held until the process ends, however it ends."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError([f"{file}: another run is writing to it"]) from error


def _sync_folder(folder: Path) -> None:
    """So that a file that is new is there after a power failure too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
