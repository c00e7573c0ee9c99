"""LoRA adapters on disk: a folder each, with adapter_config.json and adapter_model.safetensors as PEFT writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"

_MAX_HEADER: Final = 100_000_000
"""Bytes that safetensors itself allows."""

Source = Path | Mapping[str, Path]
"""A folder with a folder for each adapter, or the folder of each by name."""
Signature = tuple[tuple[int, int, int], ...]
"""Inode, size and mtime (ns) of the files of an adapter, behind symlinks."""


class UnfitAdapter(Exception):
    """What is in the folder cannot be loaded; the message says why."""


@dataclass(frozen=True)
class Adapter:
    """One version of an adapter."""

    name: str
    path: Path
    """Of its folder, behind symlinks."""
    digest: str
    """Of its content, 12 hex digits."""
    rank: int


class Folder:
    """The adapters of a source, read anew when their files change."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen: dict[str, Signature] | None = None
        self._read: dict[str, tuple[Signature, Adapter | str]] = {}

    def scan(self) -> dict[str, Adapter | str]:
        """Every adapter by name; in the place of one that cannot be loaded the reason. Reads files: not for an event loop.

        One whose files changed since the last scan is still being written, and keeps its last state until the next one; one that is
        missing for one scan only, as while a symlink is made anew, does so too.
        """
        folders = self._folders()
        if folders is None:
            return {name: adapter for name, (_, adapter) in self._read.items()}
        before, self._seen = self._seen, {name: _signature(path) for name, path in folders.items()}
        for name, signature in self._seen.items():
            settled = before is None or before.get(name) == signature
            if settled and self._read.get(name, (None,))[0] != signature:
                self._read[name] = signature, _read(name, folders[name])
        stay = folders.keys() | (before or {}).keys()
        self._read = {name: read for name, read in self._read.items() if name in stay}
        return {name: adapter for name, (_, adapter) in self._read.items()}

    def _folders(self) -> dict[str, Path] | None:
        """None: the folder cannot be read now, which says nothing of what is in it."""
        if not isinstance(self._source, Path):
            return dict(self._source)
        try:
            return {
                path.name: path for path in sorted(self._source.iterdir()) if not path.name.startswith(".") and _is_folder(path)
            }
        except FileNotFoundError:
            return {}
        except OSError:
            return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # what is behind a link is not ours to look at
        return False


def _signature(path: Path) -> Signature:
    files = []
    for name in (CONFIG, WEIGHTS):
        try:
            stat = (path / name).stat()
        except OSError:
            files.append((0, 0, 0))
            continue
        files.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(files)


def _read(name: str, path: Path) -> Adapter | str:
    try:
        config = _config(path)
        return Adapter(name, path.resolve(), _digest(path), int(config["r"]))
    except UnfitAdapter as error:
        return str(error)
    except RecursionError:
        return "its files are nested too deeply"
    except OSError as error:
        return f"cannot be read: {error.strerror or type(error).__name__}"


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text())
    except FileNotFoundError:
        raise UnfitAdapter(f"there is no {CONFIG}") from None
    except ValueError:
        raise UnfitAdapter(f"{CONFIG} is not JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
        raise UnfitAdapter(f"{CONFIG} is not that of a LoRA adapter (peft_type LORA, and its rank r)")
    _check_weights(path)
    return config


def _check_weights(path: Path) -> None:
    """Raises UnfitAdapter when the weights are missing, or not all there: the file says itself how long it is."""
    weights = path / WEIGHTS
    if not weights.is_file():
        other = (path / "adapter_model.bin").exists()
        raise UnfitAdapter(f"there is no {WEIGHTS}" + ("; weights are taken as safetensors only, not as .bin" if other else ""))
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, _MAX_HEADER)))
            ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise UnfitAdapter(f"{WEIGHTS} is not a safetensors file") from None
    if weights.stat().st_size != 8 + size + max(ends, default=0):
        raise UnfitAdapter(f"{WEIGHTS} is not complete")


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (path / name).open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:12]
