"""A host within another gateway: which visa.yaml, tenant and profile it speaks for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.policies import policy, write
from visa_proxy.errors import ConfigError
from visa_proxy.plugins.host import Host, check_alone, chosen, host_of
from visa_proxy.plugins.settings import config_path
from visa_proxy.policy.config import load_config
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


def test_the_config_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_path({"VISA_CONFIG": " ~/visa.yaml "}) == tmp_path / "visa.yaml"
    monkeypatch.chdir(tmp_path)
    assert config_path({"VISA_CONFIG": "visa.yaml"}) == tmp_path / "visa.yaml"


def visa_yaml(folder: Path, rewriter: str = "") -> Path:
    write(folder, policy())
    path = folder / "visa.yaml"
    path.write_text(f'policies: .\nbases: {{default: {{url: "http://127.0.0.1:9/v1"}}}}\n{rewriter}')
    return path


@pytest.mark.parametrize(
    ("argv", "environ", "several"),
    [
        (["litellm", "--config", "c.yaml"], {}, False),
        (["litellm", "--num_workers", "1"], {"NUM_WORKERS": "4"}, False),
        (["litellm", "--num_workers", "4"], {}, True),
        (["litellm", "--num_workers=4", "--run_gunicorn"], {}, True),
        (["litellm"], {"NUM_WORKERS": "4"}, True),
        (["litellm"], {"DEFAULT_NUM_WORKERS_LITELLM_PROXY": "4"}, True),
        (["litellm"], {"NUM_WORKERS": "auto"}, False),
    ],
)
def test_a_rewriter_is_launched_by_one_process_only(
    tmp_path: Path, argv: list[str], environ: dict[str, str], several: bool
) -> None:
    path = visa_yaml(tmp_path)
    launches, asks = (
        load_config(path, {}),
        load_config(visa_yaml(tmp_path, 'rewriter: {url: "http://127.0.0.1:9/v1", model: fake}'), {}),
    )
    check_alone(asks, path, argv=argv, environ=environ)
    if not several:
        check_alone(launches, path, argv=argv, environ=environ)
        return
    with pytest.raises(ConfigError, match=r"visa\.yaml: rewriter: launch .* would start a rewriter in each .* --num_workers 1"):
        check_alone(launches, path, argv=argv, environ=environ)


def refused(path: Path) -> str:
    """What a host says in this process."""
    try:
        Host(path)
    except ConfigError as error:
        return str(error)
    return ""


def test_a_worker_process_of_uvicorn_knows_that_it_is_one_of_several(tmp_path: Path) -> None:
    path = visa_yaml(tmp_path)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert "rewriter: launch" in pool.submit(refused, path).result(60)
    assert refused(path) == ""


async def test_what_it_opened_is_closed_with_the_gateways_event_loop(tmp_path: Path) -> None:
    host = Host(visa_yaml(tmp_path, 'rewriter: {url: "http://127.0.0.1:9/v1", model: fake}'))

    async def gateway() -> Any:
        await host.shield()
        assert host._components is not None
        return host._components._session

    session = await asyncio.to_thread(lambda: asyncio.run(gateway()))
    assert session.closed and host._living is not None and host._living.cancelled()
