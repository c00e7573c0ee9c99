"""Profiles over several value spaces: what they may name, and where their targets live."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.samples import GOOD, write
from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policies, load_policy
from visa_proxy.policy.resolve import Profile
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.values import Space, Target, ValueVector, join, load_space, load_spaces

SCHWARTZ, TONE, SOCIETY = load_space("schwartz"), load_space("tone"), load_space("inglehart-welzel")
ALL = join(load_spaces(["tone", "inglehart-welzel"]))
PROFILES = GOOD + (
    "  house: {extends: bold, values: {formality: -0.5, warmth: 1.0}}\n"
    "  own: {extends: house, mode: target, values: {individualism: 0.5, security: 0}}\n"
    "  free: {mode: target, values: {individualism: 1}}\n"
    "  flat: {extends: house, values: {formality: 0, warmth: 0}}\n"
)


def profile(folder: Path, name: str, space: Space = ALL) -> Profile:
    return load_policy(write(folder, PROFILES), space=space).profiles[name]


def values(folder: Path, name: str) -> ValueVector:
    target = profile(folder, name).target
    assert target is not None
    return target.values


def test_dimensions_of_another_space_sit_beside_schwartz_s(tmp_path: Path) -> None:
    wide = values(tmp_path, "house")
    assert wide.space == join([SCHWARTZ, TONE])
    assert wide == ValueVector.of(wide.space, {"stimulation": 1, "security": -0.5, "formality": -0.5, "warmth": 1})


def test_a_target_lives_in_the_smallest_space_that_it_needs(tmp_path: Path) -> None:
    assert values(tmp_path, "bold").space is SCHWARTZ
    assert values(tmp_path, "free").space == join([SCHWARTZ, SOCIETY])
    assert values(tmp_path, "own").space == ALL
    assert values(tmp_path, "flat").space == join([SCHWARTZ, TONE]), "named, though 0"


def test_extends_merges_across_spaces(tmp_path: Path) -> None:
    own = profile(tmp_path, "own").target
    said = {"stimulation": 1.0, "formality": -0.5, "warmth": 1.0, "individualism": 0.5}
    assert own == Target("target", ValueVector.of(ALL, said))


def test_schwartz_s_profiles_are_the_same_whatever_else_is_configured(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_policy(path).profiles == load_policy(path, space=ALL).profiles == load_policy(path, space=SCHWARTZ).profiles


def test_an_unknown_name_lists_those_of_all_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "  house: {values: {formalty: 1}}\n")
    with pytest.raises(ConfigError) as caught:
        load_policies([path], space=ALL)
    (problem,) = caught.value.problems
    assert "7:20: profiles.house.values.formalty: unknown value 'formalty'; did you mean 'formality'? " in problem
    assert problem.endswith(f"allowed: {', '.join(ALL.names)}")


def test_what_is_not_configured_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, GOOD + "  house: {values: {formality: 1}}\n"))
    assert "unknown value 'formality'" in str(caught.value)
    assert str(caught.value).endswith(f"allowed: {', '.join(SCHWARTZ.names)}")


def test_the_watcher_knows_the_spaces(tmp_path: Path) -> None:
    write(tmp_path, PROFILES)
    watcher = PolicyWatcher(tmp_path, space=ALL)
    assert not watcher.problems and set(watcher.current.tenants["acme"].profiles) >= {"house", "own"}
    with pytest.raises(ConfigError, match="formality"):
        PolicyWatcher(tmp_path)
