"""What was asked and measured: an append-only file of JSON Lines that survives a kill at any moment.

A line is one case of one system under one judge: `key`, `asked` (the same under every judge), `system`, `case`, `judge`; then `text`,
`status` and what the judge measured, or `error`. It counts as done when it is on the disk.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from visa_proxy.training.appended import Appended, read_appended

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
    return read_appended(file, _row)


def _row(row: Any) -> Row:
    """Raises ValueError."""
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


class Rows(Appended[Row]):
    """The file, opened for one run: `with Rows(file) as rows`. No second run can open it meanwhile."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, _row)
        self.by_key: dict[str, Row] = {}
        """The last row of each key."""
        self.by_asked: dict[str, Row] = {}
        """The last row with a text of each question, whoever judged it: it need not be asked again."""

    def _know(self, item: Row) -> None:
        self.by_key[item["key"]] = item
        if "error" not in item:
            self.by_asked[item["asked"]] = item

    def add(self, row: Row) -> None:
        """Returns when it is on the disk. Raises ConfigError."""
        self._append(row, row)
