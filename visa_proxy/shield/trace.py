"""What happened to one answer: feeds the headers, the `visa` object and the metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from visa_proxy.values import ValueVector


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
    refused: list[str] = field(default_factory=list)
    """Why candidates were refused, in order."""
    instruction_confidence: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Wall-clock milliseconds per stage; a stage that ran twice adds up."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, also when it fails."""
        started = time.perf_counter()
        try:
            yield
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
        if self.instruction_confidence is not None:
            data["instruction_confidence"] = round(self.instruction_confidence, 4)
        if self.attempts:
            data["usage"] = {
                "candidates": self.attempts,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            }
        data["timings_ms"] = {name: round(value, 2) for name, value in self.timings_ms.items()}
        return data
