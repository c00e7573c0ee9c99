"""Cases and rows for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visa_proxy.evaluation.cases import Case, dumps, space
from visa_proxy.evaluation.judge import Judge, JudgeFiles
from visa_proxy.evaluation.rows import Row
from visa_proxy.server.components import Instruments
from visa_proxy.training.rewards.grader import Grader
from visa_proxy.values import ValueVector

PARTS = "abcdefghijklmnopqrstuvwxyz"
QUERY = "How do I clean the grill?"
ANSWER = "Brush the grate while it is warm. Empty the tray once it is cold."


def case(number: int = 1, *, topic: str = "grills", answer: str = ANSWER, **target: float) -> Case:
    levels = target or {"stimulation": 1.0}
    return Case(f"c{number}", topic, QUERY, answer, ValueVector.of(space(), levels), dict(levels))


def some_cases(count: int, topics: int = 4) -> list[Case]:
    """Different from one another, also where placeholders stand for numbers; each towards stimulation, with a number to preserve."""
    return [
        case(i, topic=f"topic {i % topics}", answer=f"{ANSWER} Allow {i + 10} minutes for part {PARTS[i]}.") for i in range(count)
    ]


def write_cases(file: Path, cases: Sequence[Case]) -> Path:
    file.write_bytes(dumps(cases))
    return file


def row(before: Mapping[str, float], after: Mapping[str, float], consistency: float = 1.0, **more: Any) -> Row:
    """A row with a text, as a run writes it."""
    found: Row = {"text": "x", "status": "", "consistency": consistency, "forward": consistency, "backward": consistency}
    found |= {"kept": 1, "spans": 1, "length": 1.0, "changed": True, "fault": ""}
    for when, levels in (("before", before), ("after", after)):
        found[when] = {"values": [float(v) for v in ValueVector.of(space(), levels).array]}
    return found | more


@dataclass(frozen=True)
class LoadedJudge(JudgeFiles):
    """The bundled judge, loaded before."""

    instruments: Instruments | None = None

    def load(self) -> Judge:
        assert self.instruments is not None
        return Judge(Grader(self.instruments.detector, self.instruments.facts))
