"""Preference pairs: several rewrites sampled from the model, the best and the worst by the reward (paper, App. E.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import Progress

from visa_proxy.training.labelled import share
from visa_proxy.training.rewards.grader import Case
from visa_proxy.training.tuning.prompts import hidden, prompt
from visa_proxy.training.tuning.sampling import sample
from visa_proxy.training.tuning.stage import Stage
from visa_proxy.training.tuning.tasks import Task

FILE: Final = "pairs.jsonl"


@dataclass(frozen=True)
class Ranked:
    """What the samples of one prompt came to."""

    id: str
    chosen: str
    rejected: str
    best: float
    """The reward of `chosen`."""
    worst: float


def ranked(stage: Stage, cases: Sequence[Case], tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> list[Ranked]:
    """Of the samples of each case, and its written rewrite where there is one, the best and the worst."""
    recipe = stage.recipe
    found = []
    for case, task, samples in zip(cases, tasks, texts, strict=True):
        own = hidden(case.protected, task.rewrite) if task.rewrite else None
        candidates = [text for text in dict.fromkeys([*samples, *([own] if own else [])]) if text]
        grades = stage.scorer([case] * len(candidates), candidates)
        scores = [recipe.reward.total(grade) for grade in grades]
        if scores:
            high, low = (pick(range(len(scores)), key=scores.__getitem__) for pick in (max, min))
            found.append(Ranked(task.id, candidates[high], candidates[low], scores[high], scores[low]))
    return found


def ranked_pairs(stage: Stage, model: Any) -> list[Ranked]:
    """Of the recipe's prompts, those whose samples differ by the margin. Every batch is on disk before the next is sampled, so a run
    that was killed samples nothing twice."""
    settings, file = stage.recipe.pairs, stage.run / FILE
    tasks = sorted(stage.train, key=lambda task: (share(task.id), task.id))[: settings.prompts]
    known = {each.id: each for each in _read(file)}
    missing = [task for task in tasks if task.id not in known]
    size = max(1, settings.batch // settings.samples)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("pairs", total=len(tasks), completed=len(tasks) - len(missing))
        for start in range(0, len(missing), size):
            chunk = missing[start : start + size]
            for each in _sampled(stage, model, chunk):
                known[each.id] = each
                _append(file, each)
            progress.advance(bar, len(chunk))
    found = [known[task.id] for task in tasks if task.id in known]
    return [each for each in found if each.best - each.worst >= settings.margin and each.chosen != each.rejected]


def _sampled(stage: Stage, model: Any, tasks: Sequence[Task]) -> list[Ranked]:
    recipe, count = stage.recipe, stage.recipe.pairs.samples
    cases = stage.scorer.run(stage.aims.cases(tasks))
    prompts = [prompt(case, recipe.prompt) for case in cases for _ in range(count)]
    texts = sample(
        model,
        stage.tokenizer,
        prompts,
        limit=recipe.max_completion_tokens,
        batch=recipe.pairs.batch,
        template=recipe.chat_template,
        temperature=recipe.pairs.temperature,
        # By what is sampled, not by how often: a run that goes on draws what it would have drawn.
        seed=recipe.seed + int(share("".join(task.id for task in tasks)) * 2**31),
    )
    return ranked(stage, cases, tasks, [texts[i * count : (i + 1) * count] for i in range(len(tasks))])


def _append(file: Path, each: Ranked) -> None:
    with file.open("ab") as target:
        target.write(orjson.dumps(each) + b"\n")
        target.flush()
        os.fsync(target.fileno())


def _read(file: Path) -> list[Ranked]:
    """Whole lines; one cut short by a kill is sampled again."""
    found = []
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            found.append(Ranked(**orjson.loads(line)))
        except (orjson.JSONDecodeError, TypeError):
            continue
    return found
