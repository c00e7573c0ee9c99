"""A host within another gateway: which visa.yaml, tenant and profile it speaks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.policies import policy, write
from visa_proxy.errors import ConfigError
from visa_proxy.plugins.host import chosen, host_of
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.policy.watch import PolicyWatcher


@pytest.fixture
def policies(tmp_path: Path) -> PolicySet:
    write(tmp_path, policy(extra="experiments: [{name: ab, unit: user, arms: {bold: 1, off: 1}}]"))
    return PolicyWatcher(tmp_path).current


def test_one_tenant_needs_no_name_and_keeps_its_default(policies: PolicySet) -> None:
    tenant = chosen(policies, None, None)
    assert tenant is policies.tenants["acme"] and tenant.default_profile.name == "bold"


def test_a_named_profile_takes_the_place_of_default_and_experiments(policies: PolicySet) -> None:
    tenant = chosen(policies, "acme", "secret")
    assert tenant.default_profile.name == "secret" and not tenant.experiments and not tenant.request_profiles & {"secret"}


def test_of_several_tenants_one_must_be_named(tmp_path: Path) -> None:
    write(tmp_path, policy())
    write(tmp_path, policy(tenant="other", key="sk-other"), "other.yaml")
    with pytest.raises(ConfigError, match="tenant: found None; allowed: acme, other"):
        chosen(PolicyWatcher(tmp_path).current, None, None)


def test_an_unknown_tenant_or_profile_is_refused_with_what_is_allowed(policies: PolicySet) -> None:
    with pytest.raises(ConfigError, match="tenant: found 'akme'; allowed: acme"):
        chosen(policies, "akme", None)
    with pytest.raises(ConfigError, match="profile: tenant 'acme' has no profile 'bald'; allowed: aim, bold, kind, off, secret"):
        chosen(policies, "acme", "bald")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment variable VISA_CONFIG is not set"):
        host_of({})
    with pytest.raises(ConfigError, match=r"visa\.yaml"):
        host_of({"VISA_CONFIG": str(tmp_path / "visa.yaml")})


def test_guardrails_of_one_config_share_a_host(tmp_path: Path) -> None:
    write(tmp_path, policy())
    (tmp_path / "visa.yaml").write_text('policies: .\nbases: {default: {url: "http://127.0.0.1:9/v1"}}\n')
    environ = {"VISA_CONFIG": str(tmp_path / "visa.yaml")}
    assert host_of(environ) is host_of(environ)
