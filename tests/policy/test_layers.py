"""What the experiments of a file become: their part of the layer, unit, arms and times."""

from __future__ import annotations

import math
from pathlib import Path

from tests.policy.samples import GOOD, write
from visa_proxy.policy.assign import HOLDOUT, Arm, Experiment
from visa_proxy.policy.load import load_policy

ARMS = "arms: {bold: 1, off: 3}"


def experiments(folder: Path, *listed: str) -> tuple[Experiment, ...]:
    text = GOOD + "experiments:\n" + "".join(f"- {{name: e{i}, {ARMS}, {each}}}\n" for i, each in enumerate(listed))
    return load_policy(write(folder, text)).experiments


def test_a_number_stands_behind_the_experiment_before_it_in_its_layer(tmp_path: Path) -> None:
    made = experiments(
        tmp_path,
        "unit: user, layer: l, traffic: 0.1",
        "unit: session, traffic: 0.4",
        "unit: user, layer: l, traffic: 0.2",
        "unit: user, layer: l, traffic: [0.5, 0.6]",
        "unit: user, layer: l, traffic: 0.4",
        "unit: user, layer: l, traffic: [0.3, 0.5]",
        "unit: session, layer: other",
    )
    assert [each.slot for each in made] == [(0, 0.1), (0, 0.4), (0.1, 0.3), (0.5, 0.6), (0.6, 1), (0.3, 0.5), (0, 1)]
    assert [each.layer for each in made] == ["l", None, "l", "l", "l", "l", "other"]


def test_units_are_told_apart_whatever_the_case_of_their_header(tmp_path: Path) -> None:
    made = experiments(tmp_path, "unit: user", "unit: conversation", "unit: session", "unit: header:X-Room")
    assert [(each.unit, each.header) for each in made] == [
        ("user", ""),
        ("conversation", ""),
        ("header", "x-visa-unit"),
        ("header", "x-room"),
    ]


def test_arms_have_a_profile_and_a_share(tmp_path: Path) -> None:
    arms = "arms: {a1: {profile: bold, weight: 1}, a2: {profile: bold, weight: 2.0}, off: 1}"
    text = GOOD + f"experiments: [{{name: aa, unit: user, holdout: 0.2, {arms}}}]\n"
    (made,) = load_policy(write(tmp_path, text)).experiments
    assert made.arms == (Arm("a1", "bold", 1), Arm("a2", "bold", 2), Arm("off", "off", 1))
    assert made.shares == {"a1": 0.2, "a2": 0.4, "off": 0.2, HOLDOUT: 0.2}
    (plain,) = experiments(tmp_path, "unit: user")
    assert (plain.shares, plain.holdout) == ({"bold": 0.25, "off": 0.75}, 0)


def test_times_are_seconds_wherever_the_clock_stood(tmp_path: Path) -> None:
    one, two, always = experiments(
        tmp_path,
        "unit: user, start: 2026-01-01T00:00:00Z, stop: 2026-01-01T01:30:00+01:00",
        "unit: session, start: '2026-01-01 02:00:00.5+02:00'",
        "unit: conversation",
    )
    assert (one.start, one.stop) == (1_767_225_600, 1_767_225_600 + 1800)
    assert (two.start, two.stop) == (1_767_225_600.5, math.inf)
    assert (always.start, always.stop) == (-math.inf, math.inf)
