"""Value spaces from files: those that come with the package, and a user's own."""

from __future__ import annotations

import functools
import importlib.resources
import os
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError
from visa_proxy.values.document import MAX_BYTES, read_space
from visa_proxy.values.space import Space

FIRST: Final = "schwartz"
"""The space that is always measured, before all others."""
FILE: Final = "space.yaml"
"""What a folder has its space in."""
MAX_SHOWN: Final = 200
"""Characters of a path in a message."""


def load_space(name_or_path: str | Path) -> Space:
    """A bundled space by its name ("schwartz", "tone", "inglehart-welzel"), or that of a folder with space.yaml, or of a yaml file.

    `is_path` tells the two apart. Raises ConfigError when there is no such space, and with every
    problem of a file: `file:line:column: key: what was found, what is allowed`.
    """
    if isinstance(name_or_path, str) and not is_path(name_or_path):
        return _bundled(name_or_path)
    file = space_file(name_or_path)
    return _read(file, str(file))


def space_file(name_or_path: str | Path) -> Traversable | Path:
    """The file that `load_space` reads. Raises ConfigError when there is none."""
    text = str(name_or_path)
    if isinstance(name_or_path, str) and not is_path(text):
        if text not in bundled_spaces():
            raise ConfigError([f"unknown value space {text!r}; allowed: {_allowed()}"])
        return _folder() / f"{text}.yaml"
    path = Path(name_or_path)
    # Path.is_dir and is_file raise OSError for a name that is too long, or in a folder that we may not look into.
    folder = os.path.isdir(path)  # noqa: PTH112
    file = path / FILE if folder else path
    if not os.path.isfile(file):  # noqa: PTH113
        shown = repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")
        missing = f"there is no file {file}" if folder else "there is no such folder or file"
        raise ConfigError([f"unknown value space {shown}: {missing}; allowed: {_allowed()}"])
    return file


def is_path(text: str) -> bool:
    """Whether a space is named by its file or folder: with a slash in it, or a name that ends in .yaml or .yml."""
    return "/" in text or text.endswith((".yaml", ".yml"))


def load_spaces(names: Iterable[str] = ()) -> tuple[Space, ...]:
    """What a detector measures: Schwartz's space and those of `names`, see `load_space`, each once. Raises ConfigError."""
    return tuple(load_space(name) for name in distinct((FIRST, *names)))


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """`names` without those whose file an earlier one has, however it is written: ./brand, brand/, brand/space.yaml. Raises ConfigError."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(os.path.realpath(str(space_file(name))), name)
    return tuple(first.values())


def bundled_spaces() -> tuple[str, ...]:
    """The names of the spaces that come with the package, sorted."""
    return tuple(sorted(each.name.removesuffix(".yaml") for each in _folder().iterdir() if each.name.endswith(".yaml")))


@functools.cache
def _bundled(name: str) -> Space:
    source = space_file(name)
    return _read(source, source.name)


def _folder() -> Traversable:
    return importlib.resources.files("visa_proxy.values") / "spaces"


def _allowed() -> str:
    return f"{', '.join(bundled_spaces())}, or a folder with a {FILE}, such as ./spaces/brand"


def _read(source: Traversable | Path, shown: str) -> Space:
    """`shown`: what messages call the file."""
    try:
        with source.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{shown}:1:1: cannot be read: {error.strerror or error}"]) from error
    return read_space(raw, shown)
