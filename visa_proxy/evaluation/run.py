"""One evaluation: what is still to be asked, asking it, measuring it; what was done before is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import ConfigError, RewriterError, UpstreamError
from visa_proxy.evaluation.cases import Case
from visa_proxy.evaluation.judge import Judge, JudgeFiles
from visa_proxy.evaluation.rows import Row, Rows, digest, read_rows
from visa_proxy.evaluation.specs import Spec
from visa_proxy.evaluation.systems import House, Made, OpenShield, System
from visa_proxy.optional import installed

ROWS: Final = "rows.jsonl"
TRANSIENT: Final = ("unavailable", "timeout")
"""Reasons after which a case is asked about again: in this run, and by the next."""
WAITS_S: Final = (0.5, 2.0)
"""Before the second and the third try."""
STREAK: Final = 10
"""So many cases of a system without any answer, one after the other, end a run."""
SILENT: Final = ("unavailable", "unknown-model", "timeout", "error")
"""Reasons that say that there was no answer at all; the others are answers that cannot be used."""
HINTS: Final = {
    401: "it refuses the key: is --api-key-env right?",
    403: "it refuses the key: is --api-key-env right?",
    404: "are its URL (which mostly ends in /v1) and its model right?",
}


@dataclass(frozen=True)
class Settings:
    """What the command was told."""

    specs: Sequence[Spec]
    cases: Sequence[Case]
    out: Path
    judge: JudgeFiles
    open_shield: OpenShield
    keys: dict[str, str] = field(default_factory=dict, repr=False)
    concurrency: int = 4
    timeout_s: float = 60.0
    retry_failed: bool = False
    """Ask again about what ended in an error of any kind."""
    waits_s: Sequence[float] = WAITS_S


@dataclass(frozen=True)
class _Task:
    """One case of one system."""

    spec: Spec
    case: Case
    asked: str
    key: str


class Evaluation:
    """Construction reads what there is and changes nothing."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for files that cannot be read, MissingExtra for what the end would lack."""
        installed("matplotlib", extra="eval")
        installed("torch", extra="local")
        self.settings = settings
        self.file = settings.out / ROWS
        self.judge_digest = settings.judge.digest()
        self._tasks = {spec.name: list(self._tasks_of(spec)) for spec in settings.specs}
        self._by_key: dict[str, Row] = {row["key"]: row for row in read_rows(self.file)[0]}

    def _tasks_of(self, spec: Spec) -> Iterator[_Task]:
        identity = spec.identity()
        for case in self.settings.cases:
            asked = digest(identity, case.digest)
            yield _Task(spec, case, asked, digest(asked, self.judge_digest))

    def pending(self, spec: Spec) -> list[_Task]:
        """What has no row yet, or one that says to ask again."""
        return [task for task in self._tasks[spec.name] if self._asks(self._by_key.get(task.key))]

    def _asks(self, row: Row | None) -> bool:
        return row is None or ("error" in row and (self.settings.retry_failed or row["error"] in TRANSIENT))

    def rows(self, spec: Spec) -> list[Row]:
        """A row for each case, in their order. Raises KeyError before all are there."""
        return [self._by_key[task.key] for task in self._tasks[spec.name]]

    async def run(self, done: Callable[[str], None]) -> None:
        """Asks and measures all that is pending, and calls `done` with the system's name after each case.

        Systems behind a URL are asked about one case before anything that takes long is begun. Raises ConfigError when a system cannot be
        asked, or falls silent; what was done until then stays.
        """
        with Rows(self.file) as rows:
            self._by_key = rows.by_key
            # The order in which systems are opened: those that show early whether they are there.
            waiting = [spec for spec in sorted(self.settings.specs, key=lambda s: not s.remote) if self.pending(spec)]
            if not waiting:
                return
            async with House(self.settings.open_shield, self.settings.keys, self.settings.timeout_s) as house:
                rounds = [_Round(self, spec, rows, done) for spec in waiting]
                for each in rounds:
                    await each.open(house)
                judge = await asyncio.to_thread(self.settings.judge.load)
                for each in rounds:
                    await each.run(judge)


class _Round:
    """All that is pending of one system."""

    def __init__(self, evaluation: Evaluation, spec: Spec, rows: Rows, done: Callable[[str], None]) -> None:
        self._settings = evaluation.settings
        self._judge_digest = evaluation.judge_digest
        self._spec = spec
        self._rows = rows
        self._done = done
        self._pending = evaluation.pending(spec)
        self._system: System | None = None
        self._first: dict[str, Made | RewriterError] = {}
        """What the first questions gave, by key: asked before there was a judge."""
        self._streak = 0

    async def open(self, house: House) -> None:
        """Opens the system, and sees whether it answers. Raises ConfigError when it does not."""
        unasked = [task for task in self._pending if task.asked not in self._rows.by_asked]
        if not unasked:
            return
        self._system = await house.open(self._spec)
        for task in unasked[:2]:
            made = self._first[task.key] = await self._ask(self._system, task.case)
            if not (isinstance(made, RewriterError) and made.reason in SILENT):
                return
            if made.reason in ("unavailable", "unknown-model"):
                raise self._stop(made)
        if isinstance(made, RewriterError) and len(unasked) > 1:  # one case may be too much for it; two are not
            raise self._stop(made)

    async def run(self, judge: Judge) -> None:
        """`concurrency` cases at a time. Raises what `_case` raises."""
        rest = iter(self._pending)

        async def work() -> None:
            for task in rest:
                await self._case(judge, task)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.concurrency):
                    group.create_task(work())
        except ExceptionGroup as found:
            raise found.exceptions[0] from None

    async def _case(self, judge: Judge, task: _Task) -> None:
        known = self._rows.by_asked.get(task.asked)
        made: Made | RewriterError
        if known is not None:
            made = Made(known["text"], known.get("status", ""))
        elif task.key in self._first:
            made = self._first.pop(task.key)
        else:
            assert self._system is not None
            made = await self._ask(self._system, task.case)
        about: dict[str, Any] = {"key": task.key, "asked": task.asked, "system": self._spec.text, "case": task.case.id}
        about["judge"] = self._judge_digest
        if isinstance(made, RewriterError):
            self._rows.add(about | {"error": made.reason})
            self._streak = self._streak + 1 if made.reason in SILENT else 0
            if self._streak >= STREAK:
                raise self._stop(made)
        else:
            measured = await judge.judge(task.case, made.text)
            self._rows.add(about | {"text": made.text, "status": made.status} | measured)
            self._streak = 0
        self._done(self._spec.name)

    async def _ask(self, system: System, case: Case) -> Made | RewriterError:
        for wait_s in (*self._settings.waits_s, None):
            try:
                return await system.rewrite(case)
            except RewriterError as error:
                if error.reason not in TRANSIENT or wait_s is None:
                    return error
                await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns")

    def _stop(self, error: RewriterError) -> ConfigError:
        """The words of an error answer may quote what was asked, or a key, so its status has to do."""
        status = error.__cause__.status if isinstance(error.__cause__, UpstreamError) else None
        what = {
            "unavailable": "it cannot be reached",
            "unknown-model": "it does not know the model",
            "timeout": "no answer in time",
        }
        said = what.get(error.reason, f"it answered with status {status}" if status else "it answered with an error")
        hint = HINTS.get(status or 0, "is its URL right?" if error.reason == "unavailable" else "")
        kept = "what was done is kept; the same command goes on from there" if self._streak else ""
        silent = f"none of {STREAK} cases one after the other had an answer" if self._streak >= STREAK else ""
        return ConfigError([f"--system {self._spec.name}: " + "; ".join(filter(None, (said, hint, silent, kept)))])
