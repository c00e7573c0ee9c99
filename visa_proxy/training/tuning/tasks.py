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
from visa_proxy.values import Target, load_space

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
    first = next(jsonl.rows(file))
    if {"prompt", "source"} <= first.data.keys():
        return _rows(file, _sample)
    if "instruction" not in first.data:
        return _triplets(file, need_rewrite)
    if need_rewrite:
        raise first.error("rewrite: required key is missing; sft learns from written rewrites")
    return _rows(file, _instruction)


def _rows(file: Path, read: Callable[[jsonl.Row, Path], Task]) -> list[Task]:
    ids: set[str] = set()

    def task(row: jsonl.Row) -> Task:
        found = read(row, file)
        if found.id in ids:
            raise row.error(f"id: {found.id[:60]!r} stands above already; every id must be another")
        ids.add(found.id)
        return found

    return jsonl.collect(file, task)


def _triplets(file: Path, need_rewrite: bool) -> list[Task]:
    found: list[Task] = []
    for each in read_triplets(file):
        if need_rewrite and not each.rewrite.strip():
            raise ConfigError([f"{file}: id {each.id!r}: rewrite: found an empty text; sft learns from written rewrites"])
        target = Target("target", each.target)
        found.append(Task(each.id, each.split, each.query, each.answer.strip(), target, rewrite=each.rewrite.strip()))
    return found


def _sample(row: jsonl.Row, file: Path) -> Task:
    levels = row.vector("target", load_space("schwartz"), lambda name: f"target.{name}: no such value;")
    answer, rewrite = _filled(row, "source"), _filled(row, "rewritten")
    # The builder split by prompt, and said so by the file's name.
    part: Part = "validation" if file.name == "validation.jsonl" else "train"
    return Task(row.text("id"), part, row.text("prompt"), answer, Target("target", levels), rewrite=rewrite)


def _instruction(row: jsonl.Row, file: Path) -> Task:
    query, answer, instruction = row.text("query"), _filled(row, "answer"), _filled(row, "instruction")
    id_ = row.text("id") if "id" in row.data else row.within
    return Task(id_, part_of(query or answer), query, answer, None, instruction)


def _filled(row: jsonl.Row, key: str) -> str:
    if not (text := row.text(key).strip()):
        raise row.wrong(key, row.data[key], "a text that is not empty")
    return text


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
