"""The grader for code that is not asynchronous, and that is pickled: trainers' reward functions."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from visa_proxy.llm.instrument import Settings
from visa_proxy.training.rewards.grader import Case, Grade, Grader

T = TypeVar("T")


@dataclass(frozen=True)
class Instruments:
    """Which detector and fact analyzer grade."""

    detector: Settings = field(default_factory=Settings)
    facts: Settings = field(default_factory=lambda: Settings(kind="nli"))

    @classmethod
    def of(cls, detector: Path | None = None, facts: Path | None = None, spaces: Sequence[str] = ()) -> Instruments:
        """From folders of weights; None: the bundled ones. `spaces`: measured beside Schwartz's."""
        return cls(
            Settings(path=str(detector or ""), spaces=tuple(spaces)),
            Settings(kind="nli", path=str(facts or "")),
        )

    def open(self) -> Grader:
        """Raises ConfigError for weights that cannot be read, MissingExtra without torch."""
        from visa_proxy.detector.load import load_detector
        from visa_proxy.facts.load import load_facts

        return Grader(load_detector(self.detector), load_facts(self.facts))


class Scorer:
    """Opens its grader at the first use, and keeps it. What is pickled is how to open it, so a copy in another process has its own."""

    def __init__(self, opened: Callable[[], Grader]) -> None:
        self._open = opened
        self._runner: asyncio.Runner | None = None
        self.seconds = 0.0
        """Spent grading so far."""

    @functools.cached_property
    def grader(self) -> Grader:
        return self._open()

    def __call__(self, cases: Sequence[Case], rewrites: Sequence[str]) -> list[Grade]:
        """The grades, in order. Must not be called from within an event loop."""
        started = time.perf_counter()
        try:
            return self.run(self.grader.grade(cases, rewrites))
        finally:
            self.seconds += time.perf_counter() - started

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine. All run in one loop, so that an instrument behind an endpoint keeps its connections."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": self._open, "_runner": None, "seconds": 0.0}
