"""What happened to one answer: feeds the headers, the `visa` object and the metrics."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from visa_proxy.values import ValueVector

MAX_LISTED: Final = 32
"""Refusals that a trace lists: a long answer may have more."""
Headers = tuple[tuple[str, str], ...]
Watch = Callable[[str, "Trace"], AbstractContextManager[Headers]]
"""Called with the name of a stage and its trace; gives the headers that a call made in the stage is to carry along."""
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """While the context lasts, every stage of this request, and of the tasks that it starts, runs within `watch(name, trace)`."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


@dataclass
class Trace:
    """Filled in stage by stage; a stage that did not happen leaves its fields None."""

    status: str = "passthrough"
    """adapted | passthrough | aligned | skipped:<why> | fallback:<why>"""
    before: ValueVector | None = None
    """v, the base's answer as measured."""
    target: ValueVector | None = None
    """v*."""
    after: ValueVector | None = None
    """The values of what the client gets, when that is a rewrite."""
    consistency: float | None = None
    """Of the rewrite the client gets, or of the best one that was refused."""
    preserved: int | None = None
    """Number of verbatim spans that were shielded."""
    attempts: int = 0
    """Candidates asked for, over all tries."""
    model: str | None = None
    """The model or adapter that they were asked of, as the policy or the config calls it."""
    refused: list[str] = field(default_factory=list)
    """Why candidates were refused, in order."""
    instruction_confidence: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    windows: dict[str, int] | None = None
    """Of an answer rewritten in windows: how many there were, by status; None for one rewritten whole."""
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Wall-clock milliseconds per stage; a stage that ran twice adds up."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Headers]:
        """Times a stage, also when it fails. Gives the headers that a call made in it is to carry along: mostly none."""
        watch = _watch.get()
        started = time.perf_counter()
        try:
            if watch is None:
                yield ()
            else:
                with watch(name, self) as headers:
                    yield headers
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + elapsed

    @property
    def outcome(self) -> str:
        """The status without its reason: a label with few values, for metrics."""
        return self.status.partition(":")[0]

    def to_dict(self) -> dict[str, Any]:
        """The `visa` object of one choice; stages that did not happen are left out."""
        data: dict[str, Any] = {"status": self.status}
        if self.before is not None:
            vectors = {"before": self.before, "target": self.target, "after": self.after}
            data["values"] = {name: vector.to_dict() for name, vector in vectors.items() if vector is not None}
        if self.before is not None and self.target is not None:
            measured = {"before": self.before, "after": self.after}
            data["similarity"] = {
                name: round(vector.cosine(self.target), 4) for name, vector in measured.items() if vector is not None
            }
        if self.consistency is not None:
            data["consistency"] = round(self.consistency, 4)
        if self.preserved is not None:
            data["preserved_spans"] = self.preserved
        if self.refused:
            data["refused"] = self.refused
        if self.windows is not None:
            data["windows"] = {"total": sum(self.windows.values()), **self.windows}
        if self.instruction_confidence is not None:
            data["instruction_confidence"] = round(self.instruction_confidence, 4)
        if self.attempts:
            data["usage"] = usage([self])
        data["timings_ms"] = {name: round(value, 2) for name, value in self.timings_ms.items()}
        return data


def usage(traces: Iterable[Trace]) -> dict[str, int]:
    """What the rewriter cost, over all of `traces`."""
    listed = list(traces)
    prompt, completion = sum(t.prompt_tokens for t in listed), sum(t.completion_tokens for t in listed)
    return {
        "candidates": sum(t.attempts for t in listed),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def merged(parts: Sequence[Trace]) -> Trace:
    """The trace of an answer from those of its parts, at least one; value vectors aside: they are not the sum of the parts' own.

    "adapted" when any part was (the counts say how many), else the first failure, else what most of the others say.
    """
    counts = Counter(part.status for part in parts)
    whole = Trace(status=_status(counts))
    known = [part.consistency for part in parts if part.consistency is not None and part.status == "adapted"]
    whole.consistency = min(known) if known else None
    confidences = [part.instruction_confidence for part in parts if part.instruction_confidence is not None]
    whole.instruction_confidence = min(confidences) if confidences else None
    shielded = [part.preserved for part in parts if part.preserved is not None]
    whole.preserved = sum(shielded) if shielded else None
    whole.refused = [reason for part in parts for reason in part.refused][:MAX_LISTED]
    whole.attempts = sum(part.attempts for part in parts)
    whole.prompt_tokens = sum(part.prompt_tokens for part in parts)
    whole.completion_tokens = sum(part.completion_tokens for part in parts)
    timings: Counter[str] = Counter()
    for part in parts:
        timings.update(part.timings_ms)
    whole.timings_ms = dict(timings)
    return whole


def _status(counts: Counter[str]) -> str:
    if counts["adapted"]:
        return "adapted"
    failed = next((status for status in counts if status.startswith("fallback:")), None)
    prose = [status for status, _ in counts.most_common() if status not in ("skipped:verbatim", "skipped:empty")]
    return failed or (prose[0] if prose else next(iter(counts)))
