"""Rows of data as tasks: an answer, and what its rewrite is to express (paper, section 4.1, Algorithm 1).

A file is one of these, by its first row:
- triplets: {"query", "answer", "rewrite", "target", …} as `training.triplets` reads them
- samples of `visa-proxy data build`: {"prompt", "source", "target", "rewritten", …}
- instructions: {"query", "answer", "instruction"}, perhaps with "id": Φ and Ψ make the target
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.training import jsonl
from visa_proxy.training.labelled import Part, part_of, share
from visa_proxy.training.triplets import read_triplets
from visa_proxy.values import Space, Target, ValueVector, load_space

MAX_PROBLEMS: Final = 20
PARTS: Final = ("train", "validation")
"""Files of a folder that `visa-proxy data build` wrote; what is in its test.jsonl is nobody's to train on."""


@dataclass(frozen=True)
class Task:
    """One answer to rewrite."""

    id: str
    part: Part
    query: str
    answer: str
    target: Target | None
    """Given levels; None: the instruction alone decides."""
    instruction: str = ""
    rewrite: str = ""
    """A person's, where there is one."""


def read_tasks(path: Path, *, need_rewrite: bool = False) -> list[Task]:
    """The tasks of a file, or of the train.jsonl and validation.jsonl of a folder. Those of test parts are left out.

    Raises ConfigError naming file, line and key; also for a row without a rewrite, where one is needed, and for no row to train on.
    """
    files = [path / f"{part}.jsonl" for part in PARTS] if path.is_dir() else [path]
    if path.is_dir() and not files[0].is_file():
        raise ConfigError(
            [f"{path}: no train.jsonl here; --data is a file of rows, or a folder with train.jsonl and validation.jsonl"]
        )
    found = [task for file in files if file is files[0] or file.is_file() for task in _file(file, need_rewrite)]
    if not any(task.part == "train" for task in found):
        raise ConfigError([f"{path}: no row to train on: all of them are held out"])
    return [task for task in found if task.part != "test"]


def _file(file: Path, need_rewrite: bool) -> list[Task]:
    first = next(iter(jsonl.lines(file)), None)
    if first is None:
        raise ConfigError([f"{file}: no row in it"])
    place = f"{file}, line {first[0]}"
    keys = jsonl.row(place, jsonl.parse(file, first[1], first[0])).data.keys()
    if {"prompt", "source"} <= keys:
        return _rows(file, _sample)
    if "instruction" not in keys:
        return _triplets(file, need_rewrite)
    if need_rewrite:
        raise ConfigError([f"{place}: rewrite: required key is missing; sft learns from written rewrites"])
    return _rows(file, _instruction)


def _rows(file: Path, read: Callable[[jsonl.Row, Path], Task]) -> list[Task]:
    """Raises ConfigError with the first `MAX_PROBLEMS` problems."""
    found: dict[str, Task] = {}
    problems: list[str] = []
    for number, line in jsonl.lines(file):
        place = f"{file}, line {number}"
        try:
            task = read(jsonl.row(place, jsonl.parse(file, line, number)), file)
            if task.id in found:
                raise ConfigError([f"{place}: id: {task.id[:60]!r} stands above already; every id must be another"])
            found[task.id] = task
        except ConfigError as error:
            problems += error.problems
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise ConfigError(problems[:MAX_PROBLEMS])
    return list(found.values())


def _triplets(file: Path, need_rewrite: bool) -> list[Task]:
    found: list[Task] = []
    for each in read_triplets(file):
        if need_rewrite and not each.rewrite.strip():
            raise ConfigError([f"{file}: id {each.id!r}: rewrite: found an empty text; sft learns from written rewrites"])
        target = Target("target", each.target)
        found.append(Task(each.id, each.split, each.query, each.answer.strip(), target, rewrite=each.rewrite.strip()))
    return found


def _sample(row: jsonl.Row, file: Path) -> Task:
    target = Target("target", _vector(row, "target", load_space("schwartz")))
    answer, rewrite = _filled(row, "source"), _filled(row, "rewritten")
    # The builder split by prompt, and said so by the file's name.
    part: Part = "validation" if file.name == "validation.jsonl" else "train"
    return Task(row.text("id"), part, row.text("prompt"), answer, target, rewrite=rewrite)


def _instruction(row: jsonl.Row, file: Path) -> Task:
    query, answer, instruction = row.text("query"), _filled(row, "answer"), _filled(row, "instruction")
    id_ = row.text("id") if "id" in row.data else row.place.rpartition(", ")[2]
    return Task(id_, part_of(query or answer), query, answer, None, instruction)


def _filled(row: jsonl.Row, key: str) -> str:
    if not (text := row.text(key).strip()):
        raise row.wrong(key, row.data[key], "a text that is not empty")
    return text


def _vector(row: jsonl.Row, key: str, space: Space) -> ValueVector:
    levels = row.data.get(key)
    if not isinstance(levels, dict):
        raise row.wrong(key, levels, "an object of levels")
    for name, level in levels.items():
        if name not in space.index:
            raise ConfigError([f"{row.place}: {key}.{name}: no such value; allowed: {', '.join(space.names)}"])
        if isinstance(level, bool) or not isinstance(level, int | float) or not -1 <= level <= 1:
            raise row.wrong(f"{key}.{name}", level, "-1 … 1")
    return ValueVector.of(space, levels)


def for_tenant(tasks: Sequence[Task], tenant: Tenant) -> list[Task]:
    """Every answer once for each profile of `tenant` that adapts. Raises ConfigError for a tenant without one."""
    profiles = [profile for profile in tenant.profiles.values() if not profile.passthrough]
    if not profiles:
        raise ConfigError([f"{tenant.source}: profiles: all pass through; there is nothing to train for {tenant.name}"])
    answers = list({(task.query, task.answer): task for task in tasks}.values())
    return [
        replace(task, id=f"{task.id}/{profile.name}", target=profile.target, instruction=profile.instruction or "", rewrite="")
        for task in answers
        for profile in profiles
    ]


def parted(tasks: Sequence[Task], held: int) -> tuple[list[Task], list[Task]]:
    """What is trained on, and `held` tasks (fewer where there are not as many) to score on, the first in an order by hash.

    Where nothing is marked for validation, or too little, whole answers are taken from training.
    """
    train = [task for task in tasks if task.part == "train"]
    kept = sorted((task for task in tasks if task.part == "validation"), key=lambda task: (share(task.id), task.id))[:held]
    if held and not kept:
        order = sorted({task.answer for task in train}, key=lambda answer: (share(answer), answer))
        out = set(order[: max(1, min(held, len(order) // 10))]) if len(order) > 1 else set()
        kept = [task for task in train if task.answer in out][:held]
        train = [task for task in train if task.answer not in out]
    return train, kept
