"""The fenced blocks of a Markdown page, so that tests run what readers paste."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\S+)[ ]?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    file: str
    """What follows the language: the name of the file that the block is, or ""."""
    text: str


def blocks(page: Path) -> list[Block]:
    """In their order."""
    return [Block(*match.groups()) for match in _FENCE.finditer(page.read_text())]


def files(page: Path) -> dict[str, str]:
    """The blocks that are files, by name."""
    return {block.file: block.text for block in blocks(page) if block.file}
