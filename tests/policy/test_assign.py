"""Assignment: stickiness, shares, movement, independence, holdout, layers, times."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import timeit
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency

from visa_proxy.policy.assign import HOLDOUT, Arm, Assignment, Experiment, Units

COUNT = 100_000
UNITS = [Units(user=f"user-{i}") for i in range(COUNT)]
SOME = UNITS[:30_000]
"""Where no share is measured."""
ALPHA = 1e-6
"""Of each statistical check. The units are fixed, so that each passes always or never."""
FROZEN = [
    ("bold", "0b36f3ccc73d6d2c"),
    ("off", "f346715b357ab712"),
    ("off", "e12672967272442f"),
    ("off", "69985366c5e62eaf"),
]
ARM_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).filter(lambda name: name != HOLDOUT)
WEIGHTS = st.dictionaries(ARM_NAMES, st.floats(0.01, 1000), min_size=2, max_size=6)


def experiment(weights: Mapping[str, float], name: str = "tone", **settings: object) -> Experiment:
    made = Experiment(name, "user", tuple(Arm(arm, f"profile-{arm}", weight) for arm, weight in weights.items()))
    return replace(made, **settings)  # type: ignore[arg-type]


def arms(of: Experiment, units: Iterable[Units] = UNITS) -> list[str | None]:
    """Each unit's arm, None where it takes no part."""
    return [None if found is None else found.arm for found in (of.assign(unit, 0.0) for unit in units)]


def assert_shares(found: Iterable[object], expected: Mapping[Any, float]) -> None:
    """The counts lie between exact binomial quantiles."""
    counts = Counter(found)
    total = sum(counts.values())
    assert set(counts) == set(expected)
    for name, share in expected.items():
        low, high = binom.ppf([ALPHA / 2, 1 - ALPHA / 2], total, share)
        assert low <= counts[name] <= high, f"{name}: {counts[name]} of {total}, expected {low} to {high}"


def moved(before: list[str | None], after: list[str | None]) -> Counter[tuple[str | None, str | None]]:
    return Counter((x, y) for x, y in zip(before, after, strict=True) if x != y)


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {arm: weight / total for arm, weight in weights.items()}


@given(WEIGHTS, st.text(min_size=1), st.randoms())
def test_a_unit_sticks_whatever_the_order_of_the_arms_and_the_scale_of_the_weights(
    weights: dict[str, float], unit: str, random: object
) -> None:
    first = experiment(weights).assign(Units(user=unit), 0.0)
    shuffled = sorted(weights, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert first is not None and first.arm in weights
    for again in (weights, {arm: weights[arm] for arm in shuffled}, {arm: 4 * weight for arm, weight in weights.items()}):
        assert experiment(again).assign(Units(user=unit), 1e9) == first


@given(st.dictionaries(ARM_NAMES, st.floats(5e-324, 1e308), min_size=2, max_size=4), st.text(st.characters(), min_size=1))
def test_any_weights_and_any_unit_have_an_arm(weights: dict[str, float], unit: str) -> None:
    """Also lone surrogates, which JSON can hold, and weights that differ by all that numbers can."""
    found = experiment(weights, holdout=0.5, slot=(0.0, 1.0)).assign(Units(user=unit + "\ud800"), 0.0)
    assert found is not None and found.arm in {*weights, HOLDOUT}


def test_assignment_is_the_same_in_every_process_and_version() -> None:
    """Frozen: a change here moves every user of every running experiment."""
    running = experiment({"bold": 50, "off": 50}, "bold-vs-off")
    found = [running.assign(Units(user=user), 0.0) for user in ("ada", "bob", "eve", "zoë")]
    assert [(each.arm, each.unit_hash) for each in found if each] == FROZEN


def test_another_process_with_another_hash_seed_says_the_same() -> None:
    code = (
        "from visa_proxy.policy.assign import *\n"
        "e = Experiment('tone', 'user', (Arm('a', 'a', 1.0), Arm('b', 'b', 2.0)), layer='l', slot=(0.1, 0.9), holdout=0.1)\n"
        "print(*[e.assign(Units(user=f'user-{i}'), 0.0) for i in range(300)])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    here = experiment({"a": 1, "b": 2}, layer="l", slot=(0.1, 0.9), holdout=0.1)
    assert printed.split() == [str(here.assign(unit, 0.0)) for unit in UNITS[:300]]
    assert len(set(printed.split())) == 4, "None, the two arms and the holdout"


@pytest.mark.parametrize("weights", [{"a": 50, "b": 50}, {"a": 70, "b": 20, "c": 10}, {"a": 0.001, "b": 1}, {"a": 1, "b": 999}])
def test_shares_follow_the_weights(weights: dict[str, float]) -> None:
    assert_shares(arms(experiment(weights)), shares(weights))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 50, "b": 50}, {"a": 60, "b": 40}),
        ({"a": 50, "b": 50}, {"a": 1, "b": 99}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 1}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 0.1, "c": 1}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}),
        ({"a": 3, "c": 1}, {"a": 3, "b": 2, "c": 1}),
    ],
)
def test_reweighting_one_arm_moves_no_more_than_it_must(before: dict[str, float], after: dict[str, float]) -> None:
    p, q = shares(before), shares(after)
    distance = sum(abs(p.get(arm, 0) - q.get(arm, 0)) for arm in {*p, *q}) / 2
    moves = moved(arms(experiment(before)), arms(experiment(after)))
    assert_shares(["moved"] * moves.total() + ["stayed"] * (COUNT - moves.total()), {"moved": distance, "stayed": 1 - distance})
    # Up to scale one arm has changed: all moves lead to it, or all lead off it.
    sources, targets = {x for x, _ in moves}, {y for _, y in moves}
    assert len(sources) == 1 or len(targets) == 1


def test_reweighting_several_arms_moves_what_the_docstring_says() -> None:
    before, after = {"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 4, "b": 3, "c": 2, "d": 1}
    p, q = shares(before), shares(after)
    stays = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in p) for i in p)
    moves = moved(arms(experiment(before)), arms(experiment(after))).total()
    assert_shares(["moved"] * moves + ["stayed"] * (COUNT - moves), {"moved": 1 - stays, "stayed": stays})


def test_experiments_are_independent_of_each_other() -> None:
    """Also of the layer, the holdout, and experiments whose names and arms are alike."""
    made = [
        arms(experiment({"a": 1, "b": 1}, "one", holdout=0.2), SOME),
        arms(experiment({"a": 1, "b": 1}, "two", holdout=0.2), SOME),
        arms(experiment({"one": 2, "two": 1}, "a"), SOME),
        arms(experiment({"a": 1, "b": 1}, "three", layer="one", slot=(0.0, 0.5)), SOME),
        arms(experiment({"a": 1, "b": 1}, "four", layer="two", slot=(0.0, 0.5)), SOME),
        arms(experiment({"a": 1, "b": 1}, "five", slot=(0.0, 0.5)), SOME),
    ]
    for i, one in enumerate(made):
        for other in made[i + 1 :]:
            table = Counter(zip(one, other, strict=True))
            rows, columns = sorted(set(one), key=str), sorted(set(other), key=str)
            assert chi2_contingency([[table[x, y] for y in columns] for x in rows]).pvalue > ALPHA


def test_the_holdout_only_grows_and_shrinks_at_its_edge() -> None:
    weights = {"a": 2, "b": 1}
    free = arms(experiment(weights))
    held: set[int] = set()
    for share in (0.01, 0.1, 0.2, 0.5):
        found = arms(experiment(weights, holdout=share))
        now = {i for i, arm in enumerate(found) if arm == HOLDOUT}
        assert held < now, "whoever was held back still is"
        assert all(found[i] == free[i] for i in range(COUNT) if i not in now), "the others keep their arm"
        assert_shares(found, {HOLDOUT: share, "a": (1 - share) * 2 / 3, "b": (1 - share) / 3})
        held = now
    (found_out,) = {experiment(weights, holdout=0.5).assign(UNITS[i], 0.0) for i in list(held)[:1]}
    assert found_out is not None and found_out.profile is None and str(found_out) == "tone/holdout"


def test_a_layer_never_gives_one_unit_to_two_experiments() -> None:
    slots = [(0.0, 0.2), (0.2, 0.5), (0.5, 0.9)]
    made = [arms(experiment({"a": 1, "b": 1}, f"e{i}", layer="voice", slot=slot)) for i, slot in enumerate(slots)]
    takers = [[i for i, arm in enumerate(each) if arm is not None] for each in zip(*made, strict=True)]
    assert max(map(len, takers)) == 1
    assert_shares([taker[0] if taker else None for taker in takers], {0: 0.2, 1: 0.3, 2: 0.4, None: 0.1})
    for each in made:
        assert_shares([arm for arm in each if arm is not None], {"a": 0.5, "b": 0.5})
    held = arms(experiment({"a": 1, "b": 1}, "e0", layer="voice", slot=slots[0], holdout=0.2))
    assert_shares([arm for arm in held if arm is not None], {"a": 0.4, "b": 0.4, HOLDOUT: 0.2})


def test_more_traffic_only_adds_units() -> None:
    parts = [(0.3, 0.31), (0.3, 0.5), (0.2, 0.5), (0.2, 1.0), (0.0, 1.0)]
    found = [arms(experiment({"a": 1, "b": 1}, layer="voice", slot=part), SOME) for part in parts]
    for less, more in pairwise(found):
        assert {x for x, _ in moved(less, more)} == {None}


def test_times_begin_with_the_start_and_end_before_the_stop() -> None:
    timed = experiment({"a": 1, "b": 1}, start=1000.0, stop=2000.0)
    unit = Units(user="ada")
    assert [timed.assign(unit, now) is not None for now in (999.999, 1000.0, 1999.999, 2000.0)] == [False, True, True, False]
    assert timed.assign(unit, 1500.0) == experiment({"a": 1, "b": 1}).assign(unit, -math.inf), "times do not move units"


def test_units_come_from_user_conversation_or_header() -> None:
    base = experiment({"a": 1, "b": 1})
    room, talk = replace(base, unit="header", header="x-classroom"), replace(base, unit="conversation")
    units = Units("u1", "c1", {"x-classroom": "r1"})

    def as_user(name: str) -> Assignment | None:
        return base.assign(Units(user=name), 0.0)

    assert [each.assign(units, 0.0) for each in (base, talk, room)] == [as_user("u1"), as_user("c1"), as_user("r1")]
    assert len({found.unit_hash for found in map(as_user, ("u1", "c1", "r1")) if found}) == 3
    for empty in (Units(), Units("", "", {"x-classroom": ""})):
        assert [each.assign(empty, 0.0) for each in (base, talk, room)] == [None] * 3


def test_it_is_quick() -> None:
    """A few µs on an idle core, with everything on; the bound leaves room for a busy machine."""
    full = experiment({"a": 1, "b": 1}, layer="voice", slot=(0.0, 0.9999), holdout=0.0001, start=0.0, stop=9e9)
    assert full.assign(UNITS[0], 1.0) is not None
    assert min(timeit.repeat(lambda: full.assign(UNITS[0], 1.0), number=2000, repeat=7)) / 2000 < 50e-6
