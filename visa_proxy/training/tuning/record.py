"""What a run leaves on disk beside weights: the curve, what the run was, and the checkpoint that it goes on from."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.errors import ConfigError

CURVE: Final = "curve.jsonl"
IDENTITY: Final = "run.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_BEST: Final = re.compile(r"best-(\d+)")


class Curve:
    """Figures by step, a JSON object a line: {"kind": "train" | "held", "step", …}. Every line is on disk before the next step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVE

    def rows(self) -> Iterator[dict[str, Any]]:
        """A line that was cut short by a kill is not there."""
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else ():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield row

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def cut(self, step: int) -> None:
        """Without what came after `step`: the run goes on from there."""
        kept = [row for row in self.rows() if row["step"] <= step]
        _write(self.path, b"".join(orjson.dumps(row) + b"\n" for row in kept))

    def held(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row.get("kind") == "held"]


def last_checkpoint(run: Path) -> tuple[Path | None, int]:
    """The newest checkpoint that was written to its end, and its step; (None, 0) without one."""
    found = [(int(match[1]), path) for path in _folders(run) if (match := _CHECKPOINT.fullmatch(path.name))]
    for step, path in sorted(found, reverse=True):
        try:
            # The last file of a checkpoint.
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if state.get("global_step") == step:
            return path, step
    return None, 0


def best_folder(run: Path, step: int) -> Path:
    return run / f"best-{step}"


def prune_best(run: Path, keep: int) -> None:
    """Without the best weights of other steps than `keep`."""
    for path in _folders(run):
        if (match := _BEST.fullmatch(path.name)) and int(match[1]) != keep:
            shutil.rmtree(path)


def identify(run: Path, identity: dict[str, Any], *, resume: bool) -> None:
    """Make `run` the folder of this run. Raises ConfigError where it holds another one, unless a fresh one is asked for, and where it
    cannot be written to."""
    file = run / IDENTITY
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not resume:
            _forget(run)
        elif file.is_file():
            _same(file, identity)
        _write(file, orjson.dumps(identity, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise ConfigError([f"{run}: cannot be written to: {error.strerror or error}"]) from error


def _same(file: Path, identity: dict[str, Any]) -> None:
    try:
        known = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError:
        known = {}
    other = [key for key, value in identity.items() if not isinstance(known, dict) or known.get(key) != value]
    if other:
        names = ", ".join(other)
        raise ConfigError([f"{file.parent}: the run here was begun with another {names}; --fresh begins anew, and forgets it"])


def _forget(run: Path) -> None:
    for path in _folders(run):
        if _CHECKPOINT.fullmatch(path.name) or _BEST.fullmatch(path.name) or path.name == "initial":
            shutil.rmtree(path)
    for name in (CURVE, IDENTITY, "pairs.jsonl"):
        (run / name).unlink(missing_ok=True)


def _folders(run: Path) -> list[Path]:
    return [path for path in run.iterdir() if path.is_dir()] if run.is_dir() else []


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_bytes(content)
    draft.replace(path)


def peak_mb() -> float:
    """The most memory that this process has held so far: the GPU's where it trains on one, else its own (resident)."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
