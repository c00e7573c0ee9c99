"""Which tenant, which profile, which arm."""

from __future__ import annotations

import timeit
from pathlib import Path

import pytest

from tests.policy.samples import GOOD, write
from visa_proxy.errors import NotFound, PermissionDenied
from visa_proxy.policy.assign import Units
from visa_proxy.policy.keys import create_key, hash_key
from visa_proxy.policy.load import load_policies, load_policy
from visa_proxy.policy.resolve import PolicySet, Tenant, choose_profile

EXPERIMENT = "experiments: [{name: e, unit: user, arms: {bold: 50, off: 50}}]\n"
ADA = Units(user="ada")
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
    assert choose_profile(tenant, "kind", "bold", units=ADA)[0].name == "kind"
    assert choose_profile(tenant, None, "kind", units=ADA) == (tenant.profiles["kind"], None)
    profile, arm = choose_profile(tenant, units=ADA)
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


def test_the_hot_path_is_quick(tenant: Tenant) -> None:
    """Well below 10 µs on an idle core; the bound leaves room for a busy CI machine."""
    policies = PolicySet([tenant])
    seconds = min(timeit.repeat(lambda: policies.tenant_for_key("sk-unknown"), number=2000, repeat=5)) / 2000
    seconds += min(timeit.repeat(lambda: choose_profile(tenant, units=ADA), number=2000, repeat=5)) / 2000
    assert seconds < 50e-6
