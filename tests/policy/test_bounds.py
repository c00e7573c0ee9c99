"""`bounds`: how far an instruction may move each value."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.policy.samples import GOOD, write
from visa_proxy.cli.schema import json_schema
from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policy
from visa_proxy.values import join, load_space, load_spaces

PAIR = "allowed: two numbers, [least, greatest]: the least -1 … 0, the greatest 0 … 1 (no shift at all must stay possible)"


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    return caught.value.problems


def test_bounds_come_as_they_were_written(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "bounds: {power: [-0.5, 0.0], security: [0, 1], tradition: [0, 0], hedonism: [-1, 1]}\n")
    pairs = {"power": (-0.5, 0), "security": (0, 1), "tradition": (0, 0), "hedonism": (-1, 1)}
    assert load_policy(path).bounds == pairs


@pytest.mark.parametrize("more", ["", "bounds: {}\n"])
def test_no_bounds(tmp_path: Path, more: str) -> None:
    assert load_policy(write(tmp_path, GOOD + more)).bounds == {}


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("[0.2, 0.5]", "[0.2, 0.5]"),
        ("[-0.5, -0.1]", "[-0.5, -0.1]"),
        ("[0.5, -0.5]", "[0.5, -0.5]"),
        ("[-2, 3]", "[-2, 3]"),
        ("[0, 1.01]", "[0, 1.01]"),
        ("[-.inf, .nan]", "[-inf, nan]"),
        ("[true, '1']", "[true, '1']"),
        ("[0, ]", "[0]"),
        ("[-1, 0, 1]", "[-1, 0, 1]"),
        ("[-1, -0.5, 0, 0.5, 1]", "a list"),
        ("[[0], {a: 1}]", "[a list, a mapping]"),
        ("[]", "[]"),
        ("0.5", "0.5"),
        ("'01'", "'01'"),
        ("{least: 0}", "a mapping"),
        ("", "nothing"),
    ],
)
def test_a_pair_that_is_none_is_one_problem(tmp_path: Path, pair: str, found: str) -> None:
    path = write(tmp_path, GOOD + f"bounds:\n  security: [0, 1]\n  power: {pair}\n")
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}:9:") and problem.endswith(f": bounds.power: found {found}, {PAIR}")


def test_the_problem_is_where_the_pair_is(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "bounds: {power: [0.5, 1]}\n")
    assert problems_of(path)[0].startswith(f"{path}:7:17: bounds.power: found [0.5, 1], ")


@pytest.mark.parametrize(("bounds", "found"), [("[-1, 1]", "a list"), ("", "nothing"), ("power", "'power'")])
def test_bounds_are_a_mapping(tmp_path: Path, bounds: str, found: str) -> None:
    (problem,) = problems_of(write(tmp_path, GOOD + f"bounds: {bounds}\n"))
    assert problem.endswith(f"bounds: found {found}, allowed: a mapping of names to values")


def test_an_unknown_name_lists_those_of_all_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "bounds: {powr: [0, 1], warmth: [0, 0.5]}\n")
    unknown, other = problems_of(path)
    schwartz = ", ".join(load_space("schwartz").names)
    assert unknown == f"{path}:7:10: bounds.powr: unknown value 'powr'; did you mean 'power'? allowed: {schwartz}"
    assert other == f"{path}:7:24: bounds.warmth: unknown value 'warmth'; allowed: {schwartz}"
    wide = write(tmp_path, GOOD + "bounds: {warmth: [0, 0.5]}\n")
    assert load_policy(wide, space=join(load_spaces(["tone"]))).bounds == {"warmth": (0, 0.5)}


def test_the_json_schema_says_the_same() -> None:
    made = json_schema("policy")
    bounds = {**made["properties"]["bounds"], "$defs": made["$defs"]}
    assert bounds["description"] and len(bounds["propertyNames"]["enum"]) == 10
    for good in ({}, {"power": [-0.5, 0], "security": [0, 1]}):
        jsonschema.validate(good, bounds)
    for bad in (
        {"powr": [0, 1]},
        {"power": [0.1, 1]},
        {"power": [-1, -0.1]},
        {"power": [-2, 0]},
        {"power": [0]},
        {"power": [0, 0, 0]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, bounds)
