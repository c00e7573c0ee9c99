"""Files of JSON Lines that a run appends to, and that survive a kill at any moment: what was added is on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar

import orjson

from visa_proxy.errors import ConfigError

Item = TypeVar("Item")


def read_appended(file: Path, parse: Callable[[Any], Item]) -> tuple[list[Item], int]:
    """What `parse` makes of each line's JSON, and the bytes up to the end of the last whole line; a torn last line is left out.

    No file is an empty one. `parse` raises ValueError for what no run wrote. Raises ConfigError naming file and line of any other line
    that is wrong.
    """
    items: list[Item] = []
    whole = 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    items.append(parse(_loads(line)))
                except ValueError as error:
                    if not stream.read(1):
                        break
                    raise ConfigError([f"{file}, line {number}: {error}; allowed: what a run wrote there"]) from error
                whole += len(line)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ConfigError([f"{file}: cannot read it: {error.strerror}"]) from error
    return items, whole


def _loads(line: bytes) -> Any:
    """Raises ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("torn")
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("no JSON") from None


class Appended(ABC, Generic[Item]):
    """The file, opened for one run: `with Appended(…) as opened`. No second run can open it meanwhile."""

    def __init__(self, file: Path, parse: Callable[[Any], Item]) -> None:
        self._file = file
        self._parse = parse
        self._stream: BinaryIO | None = None

    @abstractmethod
    def _know(self, item: Item) -> None:
        """Called with every item in its order: those of the file when it is opened, and each that is added."""

    def __enter__(self) -> Self:
        """Raises ConfigError when another run has it, or it cannot be read or written."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._file.open("ab")
            # Held until it is closed, or the process ends, however it ends.
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            items, whole = read_appended(self._file, self._parse)
            self._stream.truncate(whole)
            os.fsync(self._stream.fileno())
            _sync_folder(self._file.parent)
        except OSError as error:
            self._close()
            raise self._failed(error) from error
        except ConfigError:
            self._close()
            raise
        for item in items:
            self._know(item)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _append(self, line: Mapping[str, Any], item: Item) -> None:
        """Returns when `line`, which says what `item` is, is on the disk. Raises ConfigError."""
        assert self._stream is not None
        try:
            self._stream.write(orjson.dumps(line) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._failed(error) from error
        self._know(item)

    def _close(self) -> None:
        if self._stream is not None:
            # What a failed write left in the buffer would fail again.
            with contextlib.suppress(OSError):
                self._stream.close()

    def _failed(self, error: OSError) -> ConfigError:
        locked = isinstance(error, BlockingIOError)
        why = "another run is writing to it" if locked else f"cannot write to it: {error.strerror}"
        return ConfigError([f"{self._file}: {why}"])


def _sync_folder(folder: Path) -> None:
    """So that a file that is new is there after a power failure too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
