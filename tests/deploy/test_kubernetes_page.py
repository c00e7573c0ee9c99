"""docs/hosts/kubernetes.md, followed word for word as far as that goes without a cluster."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from tests.deploy.charts import CHART, Manifest, one, render, validated
from tests.deploy.places import ROOT, checked, read_all, variables
from tests.fakes.base import FakeBase
from tests.fakes.http import HOST
from tests.fakes.pages import blocks, files
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.cli.main import cli
from visa_proxy.engines.ports import free_port

PAGE = ROOT / "docs" / "hosts" / "kubernetes.md"
VALUES = files(PAGE)["values.yaml"]
NO_HASH = "0" * 64
COMMANDS = [
    line for block in blocks(PAGE) if block.language == "bash" for line in re.sub(r"\\\n\s*", "", block.text).splitlines()
]


def starting(*words: str) -> list[list[str]]:
    """The commands that start so; options of kubectl that stand before the verb are left out."""
    found = [shlex.split(re.sub(r"--namespace visa ", "", line) if line.startswith("kubectl") else line) for line in COMMANDS]
    return [command for command in found if command[: len(words)] == list(words)]


def rendered(command: list[str]) -> list[Manifest]:
    """What a `helm template` or `helm upgrade --install` would send to the cluster."""
    helm = pytest.importorskip("helm_python")
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("verb", choices=["template", "upgrade"])
    parser.add_argument("--install", action="store_true")
    parser.add_argument("name")
    parser.add_argument("chart")
    parser.add_argument("--namespace")
    parser.add_argument("--values", choices=["values.yaml"])
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args(command[1:])
    assert (ROOT / given.chart).samefile(CHART)
    values = yaml.safe_load(VALUES)
    for pair in given.set:
        for key, value in helm.parse_set_string(pair).items():
            merge(values.setdefault(key, {}), value)
    return render(values, name=given.name, namespace=given.namespace)


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def test_every_command_is_one_that_is_looked_at_here() -> None:
    seen = [
        starting("kubectl", "create", "namespace"),
        starting("kubectl", "create", "secret"),
        starting("kubectl", "apply"),
        starting("kubectl", "rollout"),
        starting("kubectl", "port-forward"),
        starting("visa-proxy", "keys"),
        starting("helm"),
    ]
    assert all(seen)
    assert sum(map(len, seen)) == len(COMMANDS)
    assert all("--namespace visa" in line for line in COMMANDS if re.match(r"helm|kubectl (?!create namespace)", line))


def test_helm_makes_objects_that_kubernetes_knows() -> None:
    for command in starting("helm"):
        assert "Deployment" in validated(rendered(command)), command
    template, install, monitored = map(rendered, starting("helm"))
    assert template == install
    assert {each["kind"] for each in monitored} - {each["kind"] for each in install} == {"ServiceMonitor", "PrometheusRule"}


def test_what_is_applied_is_there() -> None:
    for command in starting("kubectl", "apply"):
        assert command[2] == "--filename"
        assert validated(read_all(ROOT / command[3]))


def test_the_secret_holds_what_is_asked_of_it() -> None:
    (secret,) = starting("kubectl", "create", "secret")
    keys = {each.partition("=")[0] for each in secret[5:] if "=" in each}
    assert secret[3:5] == ["generic", yaml.safe_load(VALUES)["secretName"]]
    assert keys == variables(yaml.safe_load(VALUES)["config"])
    (applied,) = starting("kubectl", "apply")
    for container in one(read_all(ROOT / applied[3]), "Deployment", "vllm")["spec"]["template"]["spec"]["containers"]:
        asked = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
        assert asked == [{"name": secret[4], "key": "VLLM_API_KEY"}]


def test_kubectl_takes_what_needs_no_cluster() -> None:
    if shutil.which("kubectl") is None or shutil.which("openssl") is None:
        pytest.skip("there is no kubectl here")
    for line in COMMANDS:
        if " create " in line and line.startswith("kubectl"):
            command = f"{line} --dry-run=client --output yaml"
            result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
            assert result.returncode == 0, result.stderr
            assert validated([yaml.safe_load(result.stdout)])


def test_names_and_ports_are_those_of_the_chart() -> None:
    manifests = rendered(starting("helm", "upgrade")[0])
    (rollout,), (forward,) = starting("kubectl", "rollout"), starting("kubectl", "port-forward")
    assert rollout[-1] == f"deployment/{one(manifests, 'Deployment')['metadata']['name']}"
    service = one(manifests, "Service")
    assert forward[2:] == [f"service/{service['metadata']['name']}", f"8080:{service['spec']['ports'][0]['port']}"]
    assert f"http://{service['metadata']['name']}.visa.svc/v1" in PAGE.read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert len(links) >= 4
    assert not [link for link in links if not (PAGE.parent / link).exists()]


@contextlib.asynccontextmanager
async def served(config: Path, keys: dict[str, str]) -> AsyncIterator[str]:
    """`visa-proxy serve`, ready; the value is its URL. Listens elsewhere than the file says."""
    port = free_port()
    command = (sys.executable, "-m", "visa_proxy", "serve", "--config", str(config), "--host", HOST, "--port", str(port))
    process = await asyncio.create_subprocess_exec(*command, env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **keys})
    url = f"http://{HOST}:{port}"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(90):
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as ready:
                        if ready.status == 200:
                            break
                await asyncio.sleep(0.1)
        assert process.returncode is None, "it ended"
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 40)


async def test_the_call_of_the_page_is_answered(tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> None:
    (create,) = starting("visa-proxy", "keys")
    printed = CliRunner().invoke(cli, create[1:]).output
    key, digest = re.search(r"^  (sk-\S+)$", printed, re.MULTILINE), re.search("sha256:([0-9a-f]{64})", printed)
    assert key and digest, printed
    manifests = rendered(starting("helm", "upgrade")[0])
    policies = tmp_path / "policies"
    policies.mkdir()
    for name, text in one(manifests, "ConfigMap", "visa-proxy-policies")["data"].items():
        (policies / name).write_text(text.replace(NO_HASH, digest[1]))
    settings = yaml.safe_load(one(manifests, "ConfigMap")["data"]["visa.yaml"])
    settings |= {"policies": str(policies)}
    settings["bases"]["default"]["url"], settings["rewriter"]["url"] = base.url, rewriter.url
    config = tmp_path / "visa.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert checked(config, policies) == "ok: 1 policy"
    (call,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    async with served(config, dict.fromkeys(variables(settings), "secret")) as url:
        call = call.replace("http://127.0.0.1:8080", url).replace("sk-the-key-that-was-printed", key[1])
        call = call.replace('model="base"', 'model="sample"')
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", call, stdout=asyncio.subprocess.PIPE)
        said, _ = await asyncio.wait_for(client.communicate(), 60)
    assert client.returncode == 0
    assert said.decode().startswith("adapted "), said
