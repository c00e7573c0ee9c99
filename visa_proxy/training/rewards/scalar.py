"""From two objectives to one number: R = w_v · cosine + w_s · entailment (paper, section 3.2.2), and ways to weigh them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from visa_proxy.training.rewards.functions import GATES, MEASURES, Gate, Gated, Reward
from visa_proxy.training.rewards.grader import Grade
from visa_proxy.training.rewards.scorer import Scorer

OBJECTIVES: Final = ("value", "semantic")


class RewardRecipe(BaseModel):
    """What is rewarded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scalarisation: Literal["fixed", "gated", "adaptive"] = "fixed"
    """fixed: w_v · cosine + w_s · entailment + w_g · each gate. gated: entailment · (w_v · (1 + cosine) / 2 + w_s) · each gate.
    adaptive: as fixed, and w_v, w_s move towards the objective that lags; their sum stays."""
    value: float = Field(default=1.0, ge=0, le=100)
    """w_v."""
    semantic: float = Field(default=1.0, ge=0, le=100)
    """w_s."""
    gates: tuple[Gate, ...] = ()
    gate: float = Field(default=0.5, ge=0, le=100)
    """w_g, of each gate; of no effect under gated."""
    memory: float = Field(default=0.9, ge=0, lt=1)
    """adaptive: how much of an objective's running mean is kept from one log to the next."""

    def build(self, scorer: Scorer) -> tuple[list[Reward], list[float]]:
        """The reward functions, and TRL's weights for them; those of weight 0 are only logged."""
        gates = tuple(dict.fromkeys(self.gates))
        if self.scalarisation == "gated":
            shown = [name for name in MEASURES if name in OBJECTIVES or name in GATES]
            total = Gated(scorer, (self.value, self.semantic), gates)
            return [total, *(Reward(name, scorer) for name in shown)], [1.0, *(0.0 for _ in shown)]
        names = [*OBJECTIVES, *GATES]
        weights = {"value": self.value, "semantic": self.semantic} | dict.fromkeys(gates, self.gate)
        return [Reward(name, scorer) for name in names], [weights.get(name, 0.0) for name in names]

    def total(self, grade: Grade) -> float:
        """R of one rewrite; under adaptive with the weights of the beginning. Ranks the pairs of preference training."""
        if self.scalarisation == "gated":
            return Gated(Scorer(_none), (self.value, self.semantic), self.gates).measured(grade)
        objectives = self.value * MEASURES["value"](grade) + self.semantic * MEASURES["semantic"](grade)
        return objectives + self.gate * sum(MEASURES[gate](grade) for gate in dict.fromkeys(self.gates))


def _none() -> Any:
    raise AssertionError("a grade at hand needs no grader")


def adapted(recipe: RewardRecipe, means: Mapping[str, float]) -> dict[str, float]:
    """w_v and w_s for running means of the two rewards: in proportion to weight · distance from the best, with the recipe's sum."""
    given = {"value": recipe.value, "semantic": recipe.semantic}
    lag = {"value": (1 - means["value"]) / 2, "semantic": 1 - means["semantic"]}
    pull = {name: given[name] * max(lag[name], 1e-3) for name in OBJECTIVES}
    whole = sum(pull.values())
    return {name: sum(given.values()) * pull[name] / whole for name in OBJECTIVES} if whole else given
