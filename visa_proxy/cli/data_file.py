"""Lines to a file that appears when it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from visa_proxy.errors import ConfigError


def write_rows(rows: Iterable[dict[str, Any]], out: Path) -> int:
    """As JSON Lines: see `write_lines`."""
    return write_lines((json.dumps(row, ensure_ascii=False) for row in rows), out)


def write_lines(lines: Iterable[str], out: Path) -> int:
    """Their number; the file appears when it is whole, and where that fails nothing stays. Raises ConfigError."""
    if os.path.exists(out) and not os.path.isfile(out):  # noqa: PTH110, PTH113 - Path's raise OSError for a name that is too long
        raise ConfigError([f"--out: {out} is no regular file; allowed: a new file, or one to write anew"])
    part = out.with_name(out.name + ".part")
    count = 0
    try:
        file = part.open("w", encoding="utf-8")
        try:
            with file:
                for line in lines:
                    file.write(line + "\n")
                    count += 1
            part.replace(out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        found = f"{error.filename or out}: {error.strerror or error}"
        raise ConfigError([f"{found}; allowed: data that can be read, and an --out that can be written"]) from error
    return count
