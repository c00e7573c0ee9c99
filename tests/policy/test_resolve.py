"""Which tenant, which profile, which arm."""

from __future__ import annotations

import timeit
from collections import Counter
from pathlib import Path

import pytest

from tests.policy.samples import GOOD, write
from visa_proxy.errors import NotFound, PermissionDenied
from visa_proxy.policy.assign import Experiment
from visa_proxy.policy.keys import create_key, hash_key
from visa_proxy.policy.load import load_policies, load_policy
from visa_proxy.policy.resolve import PolicySet, Tenant, choose_profile

EXPERIMENT = "experiments: [{name: e, unit: user, arms: {bold: 50, off: 50}}]\n"
FROZEN = [
    ("bold", "2bf2d3086a74b903"),
    ("off", "9e11369acefa201b"),
    ("bold", "c56834709512678b"),
    ("off", "1e15d23d956f611f"),
]
REQUEST = "request: {profiles: [bold, kind], instruction: true}\n"


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return load_policy(write(tmp_path, GOOD + "  kind: {instruction: Be kinder.}\n" + EXPERIMENT + REQUEST))


def test_keys_find_their_tenant_and_nothing_else(tmp_path: Path) -> None:
    key, digest = create_key()
    assert key.startswith("sk-visa-") and digest == hash_key(key)
    text = GOOD.replace("sha256:" + "ab" * 32, digest)
    policies = load_policies([write(tmp_path, text)])
    found = policies.tenant_for_key(key)
    assert found is not None and found.name == "acme"
    for wrong in ("", key + "x", key[:-1], digest, "\udcff", "schlüssel"):
        assert policies.tenant_for_key(wrong) is None
    assert PolicySet().tenant_for_key(key) is None
    assert digest[7:] not in repr(found)


def test_header_wins_over_suffix_over_experiment_over_default(tenant: Tenant) -> None:
    assert choose_profile(tenant, "kind", "bold", user="u")[0].name == "kind"
    assert choose_profile(tenant, None, "kind", user="u") == (tenant.profiles["kind"], None)
    profile, arm = choose_profile(tenant, user="u")
    assert arm is not None and arm.arm == profile.name and str(arm) == f"e/{profile.name}"
    assert choose_profile(tenant) == (tenant.profiles["bold"], None)
    assert choose_profile(tenant, "", "") == (tenant.profiles["bold"], None)


def test_profiles_outside_the_permission_are_refused(tenant: Tenant) -> None:
    with pytest.raises(PermissionDenied, match="allowed: bold, kind") as denied:
        choose_profile(tenant, "off")
    assert (denied.value.code, denied.value.param, denied.value.status) == (
        "profile_not_allowed",
        "X-Visa-Profile",
        403,
    )
    with pytest.raises(NotFound, match="allowed: bold, kind") as missing:
        choose_profile(tenant, None, "nope")
    assert (missing.value.code, missing.value.param, missing.value.status) == ("profile_not_found", "model", 404)


def test_units_stick_and_shares_follow_the_weights() -> None:
    experiment = Experiment.of("tone", "user", {"a": 70, "b": 20, "c": 10})
    units = [f"user-{i}" for i in range(4000)]
    first = [experiment.assign(user=unit, headers={}) for unit in units]
    assert first == [experiment.assign(user=unit, headers={}) for unit in units]
    counts = Counter(assignment.arm for assignment in first if assignment)
    assert all(abs(counts[arm] / 4000 - share) < 0.03 for arm, share in {"a": 0.7, "b": 0.2, "c": 0.1}.items())


def test_assignment_is_the_same_in_every_process_and_version() -> None:
    """Frozen: a change here moves every user of every running experiment."""
    experiment = Experiment.of("bold-vs-off", "user", {"bold": 50, "off": 50})
    arms = [experiment.assign(user=user, headers={}) for user in ("ada", "bob", "eve", "zoë")]
    assert [(arm.arm, arm.unit_hash) for arm in arms if arm] == FROZEN


def test_experiments_are_independent_of_each_other() -> None:
    one, two = (Experiment.of(name, "user", {"a": 1, "b": 1}) for name in ("one", "two"))
    pairs = Counter(
        (x.arm, y.arm)
        for i in range(4000)
        if (x := one.assign(user=str(i), headers={})) and (y := two.assign(user=str(i), headers={}))
    )
    assert len(pairs) == 4 and all(abs(count - 1000) < 120 for count in pairs.values())


def test_units_come_from_user_session_or_header() -> None:
    headers = {"x-visa-unit": "s1", "x-classroom": "c1"}
    arms = {"a": 1.0, "b": 1.0}
    session, room = Experiment.of("e", "session", arms), Experiment.of("e", "header:X-Classroom", arms)
    assert session.assign(user=None, headers=headers) == Experiment.of("e", "user", arms).assign(user="s1", headers={})
    assert room.assign(user=None, headers=headers) == Experiment.of("e", "user", arms).assign(user="c1", headers={})
    for experiment in (session, room, Experiment.of("e", "user", arms)):
        assert experiment.assign(user="", headers={}) is None


def test_the_hot_path_is_quick(tenant: Tenant) -> None:
    """Well below 10 µs on an idle core; the bound leaves room for a busy CI machine."""
    policies = PolicySet([tenant])
    seconds = min(timeit.repeat(lambda: policies.tenant_for_key("sk-unknown"), number=2000, repeat=5)) / 2000
    seconds += min(timeit.repeat(lambda: choose_profile(tenant, user="ada"), number=2000, repeat=5)) / 2000
    assert seconds < 50e-6
