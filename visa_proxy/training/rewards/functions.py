"""Reward functions as TRL calls them: each is logged under its own name, and all of a step share one grading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from visa_proxy.shield.preserve import Protected
from visa_proxy.training.rewards.form import length_score
from visa_proxy.training.rewards.grader import Case, Grade
from visa_proxy.training.rewards.scorer import Scorer
from visa_proxy.values import ValueVector

Gate = Literal["form", "length", "placeholders"]
GATES: Final[tuple[Gate, ...]] = get_args(Gate)
MEASURES: Final[Mapping[str, Callable[[Grade], float]]] = {
    "value": lambda grade: grade.value,
    "semantic": lambda grade: grade.consistency,
    "form": lambda grade: float(not grade.faults),
    "length": lambda grade: length_score(grade.length),
    "placeholders": lambda grade: float(grade.intact),
}
"""value: -1 … 1 (paper, Eq. 3); semantic: 0 … 1, entailment both ways (Eq. 4); gates: 0 … 1."""
COLUMNS: Final = ("query", "answer", "text", "spans", "target")


def columns(case: Case) -> dict[str, Any]:
    """A case as plain values: what a row of a trainer's data set holds beside the prompt."""
    target = {name: level for name, level in case.target.to_dict(digits=6).items() if level}
    return {
        "query": case.query,
        "answer": case.original,
        "text": case.protected.text,
        "spans": list(case.protected.spans),
        "target": {"space": list(case.target.space.names), "levels": target},
    }


def text_of(completion: Any) -> str:
    """What the model wrote: of a conversation's turn, or of plain text."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


class Reward:
    """A callable class, not a closure: trainers pickle their rewards. `__name__` is what the metric is called."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        """`name`: of `MEASURES`."""
        self.__name__ = name
        self.scorer = scorer

    def __call__(self, completions: Sequence[Any], **row: Any) -> list[float]:
        """A reward for every completion; `row` holds the columns of the data set, one entry for each completion, and TRL's own."""
        before = self.scorer.seconds
        space = self.scorer.grader.detector.space
        rows = zip(*(row[name] for name in COLUMNS), strict=True)
        cases = [
            Case(query, answer, Protected(text, tuple(spans)), ValueVector.of(space.covering(target["space"]), _levels(target)))
            for query, answer, text, spans, target in rows
        ]
        grades = self.scorer(cases, [text_of(completion).strip() for completion in completions])
        if (log := row.get("log_metric")) is not None:
            log(f"seconds/reward_{self.__name__}", self.scorer.seconds - before)
        return [self.measured(grade) for grade in grades]

    def measured(self, grade: Grade) -> float:
        return MEASURES[self.__name__](grade)


def _levels(target: Mapping[str, Any]) -> dict[str, float]:
    # A data set that stores rows in columns fills the keys that other rows have with None.
    return {name: level for name, level in target["levels"].items() if level}


class Gated(Reward):
    """entailment · (w_v · (1 + cosine) / 2 + w_s) · the product of the gates.

    Values count as far as the meaning is kept, "a foundational constraint for valid rewriting" (paper, section 3.2.2), and what is no
    rewrite earns nothing, whatever it measures.
    """

    def __init__(self, scorer: Scorer, weights: tuple[float, float], gates: Sequence[Gate]) -> None:
        super().__init__("gated", scorer)
        self.weights = weights
        self.gates = tuple(gates)

    def measured(self, grade: Grade) -> float:
        total = grade.consistency * (self.weights[0] * (1 + grade.value) / 2 + self.weights[1])
        for gate in self.gates:
            total *= MEASURES[gate](grade)
        return total
