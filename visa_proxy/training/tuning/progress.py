"""A run as a table on the terminal: rewards as they come, held-out scores, time; a line each where there is no terminal."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable

ROWS: Final = 12
COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("loss", "loss"),
    ("reward", "reward"),
    ("reward_std", "± in group"),
    ("rewards/value/mean", "value"),
    ("rewards/semantic/mean", "semantic"),
    ("rewards/form/mean", "form"),
    ("rewards/length/mean", "length"),
    ("rewards/placeholders/mean", "spans"),
    ("rewards/margins", "margin"),
    ("kl", "KL"),
    ("entropy", "entropy"),
    ("completions/mean_length", "tokens"),
    ("step_time", "s/step"),
)
"""What trainers log, and what it is called here; columns that a stage does not log are not shown."""


class Table:
    """Nothing is shown before `begin`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._rows: deque[tuple[int, dict[str, float]]] = deque(maxlen=ROWS)
        self._scores: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        )
        self._bar = self._progress.add_task("steps", total=None)

    def begin(self, steps: int, done: int) -> None:
        self._progress.update(self._bar, total=steps, completed=done)
        if self._console.is_terminal and self._live is None:
            self._live = Live(self._drawn(), console=self._console, refresh_per_second=2)
            self._live.start()

    def logged(self, step: int, numbers: dict[str, float]) -> None:
        """What a trainer logs at `step`."""
        self._rows.append((step, numbers))
        self._progress.update(self._bar, completed=step)
        shown = "  ".join(f"{title} {numbers[name]:.4g}" for name, title in COLUMNS if name in numbers)
        self._update(f"step {step}  {shown}")

    def scored(self, row: dict[str, Any]) -> None:
        """A held-out score."""
        self._scores.append(row)
        self._update(
            f"step {row['step']}  held out: joint success {row['success']:.3f}  value {row['value']:.3f}  "
            f"consistency {row['consistency']:.3f}  spans {row['intact']:.3f}"
        )

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _update(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._drawn())
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _drawn(self) -> Group:
        shown = [(name, title) for name, title in COLUMNS if any(name in numbers for _, numbers in self._rows)]
        rewards = RichTable("step", *(title for _, title in shown), title="training")
        for step, numbers in self._rows:
            rewards.add_row(str(step), *(f"{numbers[name]:.4g}" if name in numbers else "" for name, _ in shown))
        scores = RichTable("step", "joint success", "value", "consistency", "spans", "form", title="held out, greedy")
        for row in self._scores:
            names = ("success", "value", "consistency", "intact", "form")
            scores.add_row(str(row["step"]), *(f"{row[name]:.3f}" for name in names))
        return Group(rewards, scores, self._progress)
