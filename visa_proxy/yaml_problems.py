"""What goes wrong when YAML is read, as one line that names file, line and column; and what makes any text fit to be printed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from visa_proxy.errors import ConfigError

_CONTROL: Final = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
"""What moves the cursor, commands a terminal, ends a line, or cannot be encoded."""


def visible(text: str, *, lines: bool = False) -> str:
    r"""`text` with \x1b for ESC, and so on for every character that is not there to be seen. `lines`: tabs and line breaks stay."""
    return re.sub(rf"(?!\t|\r?\n){_CONTROL}" if lines else _CONTROL, lambda found: repr(found[0])[1:-1], text)


@contextlib.contextmanager
def named(file: Path | str) -> Iterator[None]:
    """Raises ConfigError where decoding or parsing the bytes of `file` fails."""
    try:
        yield
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{file}:{line}:1: not UTF-8: byte {error.object[error.start]:#04x}"]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError([f"{file}:{at}: not valid YAML: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The reader's own error for control characters, whose text spans lines and quotes the input; and Python's for "\UFFFFFFFF".
        raise ConfigError([f"{file}:1:1: not valid YAML: it holds a character YAML does not allow"]) from error
    except RecursionError as error:
        raise ConfigError([f"{file}:1:1: nested too deeply"]) from error
