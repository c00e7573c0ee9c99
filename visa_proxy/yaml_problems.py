"""What goes wrong when YAML is read, as one line that names file, line and column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from visa_proxy.errors import ConfigError


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
    except yaml.YAMLError as error:
        # The reader's own error for control characters; its text spans lines and quotes the input.
        raise ConfigError([f"{file}:1:1: not valid YAML: it holds a character YAML does not allow"]) from error
    except RecursionError as error:
        raise ConfigError([f"{file}:1:1: nested too deeply"]) from error
