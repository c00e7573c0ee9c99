"""Rewards as a trainer calls them: by columns, under their own names, pickled."""

from __future__ import annotations

import dataclasses
import functools
import pickle

import pytest

from visa_proxy.server.components import Instruments
from visa_proxy.shield.preserve import protect
from visa_proxy.training.rewards import scorer
from visa_proxy.training.rewards.functions import Gated, Reward, columns, text_of
from visa_proxy.training.rewards.grader import Case, Grade, Grader
from visa_proxy.training.rewards.scalar import RewardRecipe, adapted
from visa_proxy.training.rewards.scorer import Scorer
from visa_proxy.values import ValueVector, load_space

SPACE = load_space("schwartz")
ANSWER = "Ask at the desk. It opens at 9 a.m. every day."
CASE = Case("When?", ANSWER, protect(ANSWER), ValueVector.of(SPACE, {"benevolence": 1, "power": -0.5}))
HONEST = "Ask our kind friends at the desk. It opens at ⟦1⟧ every day."
GRADE = Grade(0.5, 0.9, 0.8, 0.8, True, (), 2.3, 0.4, 0.5, ValueVector.zero(SPACE))


@pytest.fixture
def scored(instruments: Instruments) -> Scorer:
    return Scorer(lambda: Grader(instruments.detector, instruments.facts))


def rows(count: int) -> dict[str, list[object]]:
    return {name: [value] * count for name, value in columns(CASE).items()}


def test_rewards_of_one_step_share_one_grading_and_log_their_time(scored: Scorer) -> None:
    rewards, weights = RewardRecipe(gates=("form", "placeholders")).build(scored)
    assert [r.__name__ for r in rewards] == ["value", "semantic", "form", "length", "placeholders"]
    assert weights == [1.0, 1.0, 0.5, 0.0, 0.5]
    completions = [[{"role": "assistant", "content": f" {HONEST}"}], [{"role": "assistant", "content": "Power, wealth."}]]
    logged: dict[str, float] = {}
    found = {r.__name__: r(completions=completions, prompts=None, **rows(2), log_metric=logged.__setitem__) for r in rewards}
    assert found["value"][0] > 0.5 > found["value"][1] and found["semantic"][0] > 0.5 and found["semantic"][1] == 0
    assert found["placeholders"] == [1, 0] and found["form"] == [1, 0]
    assert logged["seconds/reward_value"] > 10 * logged["seconds/reward_form"] >= 0
    assert sum(logged.values()) == pytest.approx(scored.seconds, abs=1e-6)


def test_the_grading_does_not_depend_on_how_rows_are_stored(scored: Scorer) -> None:
    reward = Reward("value", scored)
    stored = rows(1)
    levels = dict.fromkeys(SPACE.names) | columns(CASE)["target"]["levels"]  # as a table of columns fills in
    stored["target"] = [{"space": list(SPACE.names), "levels": levels}]
    assert reward(completions=[HONEST], **stored) == reward(completions=[HONEST], **rows(1))


def test_rewards_are_pickled_without_models(monkeypatch: pytest.MonkeyPatch, instruments: Instruments) -> None:
    opened = Grader(instruments.detector, instruments.facts)

    def loaded(self: scorer.Instruments) -> Grader:
        return opened

    loaded.__name__ = "open"  # what a pickled method is found by
    monkeypatch.setattr(scorer.Instruments, "open", loaded)
    rewards, _ = RewardRecipe(scalarisation="gated", gates=("form",)).build(Scorer(scorer.Instruments().open))
    before = [reward(completions=[HONEST], **rows(1)) for reward in rewards]
    raw = pickle.dumps(rewards)
    assert len(raw) < 4000
    copies = pickle.loads(raw)
    assert [copy.__name__ for copy in copies] == ["gated", "value", "semantic", "form", "length", "placeholders"]
    assert len({id(copy.scorer) for copy in copies}) == 1
    assert [copy(completions=[HONEST], **rows(1)) for copy in copies] == before


def test_scalarisations() -> None:
    fixed = RewardRecipe(value=2.0, semantic=3.0, gates=("form", "length"), gate=0.5)
    assert fixed.total(GRADE) == pytest.approx(2 * 0.5 + 3 * 0.8 + 0.5 * 1 + 0.5 * 0.5)
    gated = RewardRecipe(scalarisation="gated", value=2.0, semantic=3.0, gates=("form", "length"))
    assert gated.total(GRADE) == pytest.approx(0.8 * (2 * 0.75 + 3) * 1 * 0.5)
    none = functools.partial(Gated, Scorer(lambda: pytest.fail("no grader is needed")), (1.0, 1.0))
    assert none(["placeholders"]).measured(dataclasses.replace(GRADE, value=1, consistency=1, length=1, intact=False)) == 0
    assert none([]).measured(dataclasses.replace(GRADE, value=1, consistency=1, intact=False)) == 2


def test_adaptive_weights_go_to_the_objective_that_lags() -> None:
    recipe = RewardRecipe(scalarisation="adaptive", value=1.0, semantic=1.0)
    found = adapted(recipe, {"value": 0.6, "semantic": 0.4})  # 0.2 and 0.6 from the best
    assert found == {"value": pytest.approx(0.5), "semantic": pytest.approx(1.5)}
    assert sum(adapted(recipe, {"value": 1.0, "semantic": 1.0}).values()) == pytest.approx(2.0)


def test_text_of_a_completion() -> None:
    assert text_of("plain") == "plain"
    assert text_of([{"role": "assistant", "content": "a turn"}]) == "a turn"
    assert text_of([{"role": "assistant", "content": None}]) == ""
