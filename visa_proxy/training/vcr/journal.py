"""What the annotator said, pair by pair: an append-only file that survives a kill at any moment.

A line is `{"key", "id", "model", "prompt", "chosen": {…}, "rejected": {…}}`, or has `"failed": "why"` for levels; no text of anybody. A pair
counts as done when its line is on the disk. At a kill, what had been asked and not written is at most what was in flight.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visa_proxy.training.appended import Appended, read_appended
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
    entries, whole = read_appended(file, functools.partial(_entry, space))
    return dict(entries), whole


def _entry(space: Space, data: Any) -> tuple[str, Entry]:
    """Raises ValueError."""
    key = data.get("key") if isinstance(data, dict) else None
    if not isinstance(key, str):
        raise ValueError("no object with a key")
    if isinstance(failed := data.get("failed"), str):
        return key, Entry(None, failed)
    return key, Entry(Annotation(read_levels(space, data.get(CHOSEN)), read_levels(space, data.get(REJECTED))))


class Journal(Appended[tuple[str, Entry]]):
    """The file, opened for one run: `with Journal(file, space) as journal`. No second run can open it meanwhile."""

    def __init__(self, file: Path, space: Space) -> None:
        super().__init__(file, functools.partial(_entry, space))
        self.entries: dict[str, Entry] = {}
        """Those of the file when it was opened, and what was added since."""

    def _know(self, item: tuple[str, Entry]) -> None:
        key, entry = item
        self.entries[key] = entry

    def add(self, key: str, entry: Entry, **about: str) -> None:
        """Returns when the line is on the disk. `about`: what else the line says. Raises ConfigError."""
        data: dict[str, Any] = {"key": key, **about}
        if entry.annotation is None:
            data["failed"] = entry.failed
        else:
            data |= {CHOSEN: entry.annotation.chosen.to_dict(), REJECTED: entry.annotation.rejected.to_dict()}
        self._append(data, (key, entry))
