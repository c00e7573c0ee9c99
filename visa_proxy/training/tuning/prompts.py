"""Cases as rows of a trainer's data set: the one prompt renderer, and the answers that supervised stages learn."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from visa_proxy.rewriter.prompt import Message, Style, render
from visa_proxy.shield.preserve import Protected
from visa_proxy.training.rewards.functions import columns
from visa_proxy.training.rewards.grader import Case
from visa_proxy.training.tuning.targets import Aims
from visa_proxy.training.tuning.tasks import Task
from visa_proxy.values import ValueVector, load_space

CHUNK: Final = 512
REMEMBERED: Final = 4096


def prompt(case: Case, style: Style) -> list[Message]:
    """The messages that the served rewriter is sent for `case`."""
    return render(style, query=case.query, text=case.protected.text.strip(), target=case.target)


def hidden(protected: Protected, rewrite: str) -> str | None:
    """A written rewrite with the answer's verbatim spans as placeholders; None where it lacks one, or has them in another order."""
    pieces: list[str] = []
    position = 0
    for number, span in enumerate(protected.spans, 1):
        # "2" is not the 2 of "2024", but the 1080 of "1080p" is one.
        before, behind = (r"(?<!\w)" if span[:1].isalnum() else ""), (r"(?!\w)" if span[-1:].isalnum() else "")
        found = re.compile(before + re.escape(span) + behind).search(rewrite, position)
        found = found or re.compile(re.escape(span)).search(rewrite, position)
        if found is None:
            return None
        pieces += [rewrite[position : found.start()], f"⟦{number}⟧"]
        position = found.end()
    text = "".join([*pieces, rewrite[position:]])
    return text if protected.intact(text) else None


class OnTheFly:
    """What a data set makes of row numbers when a step asks for them: prompts with v* computed then (paper, Algorithm 1)."""

    def __init__(self, tasks: Sequence[Task], aims: Aims, run: Callable[[Any], Any], style: Style) -> None:
        """`run`: the result of a coroutine."""
        self._tasks = tasks
        self._aims = aims
        self._run = run
        self._style: Style = style
        self._known: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """{"row": […]} to the columns of the rewards, and "prompt"."""
        missing = [number for number in dict.fromkeys(batch["row"]) if number not in self._known]
        for number, case in zip(missing, self._run(self._aims.cases([self._tasks[i] for i in missing])), strict=True):
            self._known[number] = {"prompt": prompt(case, self._style), **columns(case)}
        rows = [self._known[number] for number in batch["row"]]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return {name: [row[name] for row in rows] for name in rows[0]}


def fitting(
    tasks: Sequence[Task], aims: Aims, style: Style, tokenizer: Any, template: dict[str, Any], limits: tuple[int, int]
) -> list[Task]:
    """Those whose prompt, without the system message that all share, has at most limits[0] tokens, and whose rewrite at most limits[1].

    A target that is not known yet counts as one that names every value. A written rewrite that lacks a verbatim span does not fit.
    """
    kept: list[Task] = []
    widest = ValueVector(load_space("schwartz"), [-0.5] * 10)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("tokens of the prompts", total=len(tasks))
        for start in range(0, len(tasks), CHUNK):
            chunk = tasks[start : start + CHUNK]
            shields = [aims.protected(task.answer) for task in chunk]
            known = [task.target.values if task.target and task.target.mode == "target" else widest for task in chunk]
            cases = [Case(t.query, t.answer, p, v) for t, p, v in zip(chunk, shields, known, strict=True)]
            messages = [[message for message in prompt(case, style) if message["role"] != "system"] for case in cases]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, **template)
            wanted = [hidden(p, t.rewrite) if t.rewrite else "" for p, t in zip(shields, chunk, strict=True)]
            answers = tokenizer([text or "" for text in wanted], add_special_tokens=False)["input_ids"]
            for task, before, text, after in zip(chunk, ids["input_ids"], wanted, answers, strict=True):
                if text is not None and len(before) <= limits[0] and len(after) < limits[1]:
                    kept.append(task)
            progress.advance(bar, len(chunk))
    return kept
