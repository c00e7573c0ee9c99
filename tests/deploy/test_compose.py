"""deploy/compose: no engine runs here, so the file is checked against the specification's schema, and its parts against each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.places import DEPLOY, checked, read, variables
from visa_proxy.policy.config import load_config

FOLDER = DEPLOY / "compose"
FILE = FOLDER / "compose.yaml"
COMPOSE = read(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]


def against_schema(path: Path) -> subprocess.CompletedProcess[str]:
    validator = Path(sys.executable).with_name("check-jsonschema")
    command = [str(validator), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    good = against_schema(FILE)
    assert good.returncode == 0, good.stdout
    (tmp_path / "compose.yaml").write_text(FILE.read_text().replace("depends_on:", "depend_on:"))
    assert against_schema(tmp_path / "compose.yaml").returncode != 0, "the schema would not have noticed"


def test_what_is_mounted_is_there() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    binds = {FOLDER / mount["source"] for mount in mounts if mount["type"] == "bind"}
    assert len(binds) >= 7
    assert not [str(path) for path in binds if not path.resolve().exists()]
    assert all(mount["read_only"] for mount in mounts if mount["type"] == "bind")
    assert {mount["source"] for mount in mounts if mount["type"] == "volume"} == COMPOSE["volumes"].keys()


def test_the_proxy_finds_its_config_and_its_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    config = read(FOLDER / "visa.yaml")
    assert checked(FOLDER / "visa.yaml", FOLDER / "policies") == "ok: 1 policy"
    targets = {mount["source"]: mount["target"] for mount in SERVICES["proxy"]["volumes"]}
    assert targets["./visa.yaml"] == "/etc/visa/visa.yaml", "what the image's command reads"
    assert targets[config["policies"]] == str(Path("/etc/visa", config["policies"]))
    assert variables(config) <= SERVICES["proxy"]["environment"].keys()
    for name in variables(config):
        monkeypatch.setenv(name, "secret")
    loaded = load_config(FOLDER / "visa.yaml")
    assert loaded.host == "0.0.0.0", "nobody outside the container would reach it otherwise"
    assert f"{loaded.port}:{loaded.port}" in SERVICES["proxy"]["ports"]
    assert int(SERVICES["proxy"]["stop_grace_period"].removesuffix("s")) > loaded.drain_s


def test_urls_name_services() -> None:
    files = [FOLDER / name for name in ("visa.yaml", "prometheus.yml", "grafana/datasources.yaml")]
    hosts = {urlsplit(url).hostname for path in files for url in re.findall(r"https?://[^\s\"]+", path.read_text())}
    scraped = [
        target for job in read(FOLDER / "prometheus.yml")["scrape_configs"] for target in job["static_configs"][0]["targets"]
    ]
    hosts |= {target.partition(":")[0] for target in scraped}
    assert hosts == {"vllm", "proxy", "prometheus"}
    assert hosts <= SERVICES.keys()


def test_a_service_waits_only_for_one_that_says_when_it_is_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in SERVICES[needed], f"{name} waits for {needed}"
            assert not SERVICES[needed].get("profiles"), f"{name} waits for {needed}, which may not be started"


def test_secrets_come_from_the_environment_and_are_listed_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    listed = {line.partition("=")[0] for line in (FOLDER / ".env.example").read_text().splitlines() if "=" in line}
    assert used == listed
    filled = [line for line in (FOLDER / ".env.example").read_text().splitlines() if re.match(r"\w+=.", line)]
    assert [line.partition("=")[0] for line in filled] == ["MODEL"]
    assert ".env" in (FOLDER / ".gitignore").read_text().split()
    for service in SERVICES.values():
        secrets = {name: value for name, value in service.get("environment", {}).items() if re.search("KEY|TOKEN|PASSWORD", name)}
        assert all(value.startswith("${") for value in secrets.values())


def test_what_faces_outside_is_locked_up() -> None:
    for name in ("proxy", "prometheus", "grafana"):
        service = SERVICES[name]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
    assert SERVICES["vllm"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "ports" not in SERVICES["vllm"], "whoever reaches it with its key can load adapters"
    open_to_all = [
        port for service in SERVICES.values() for port in service.get("ports", []) if not port.startswith("127.0.0.1:")
    ]
    assert open_to_all == ["8080:8080"]


def test_nothing_pretends_to_use_the_store() -> None:
    assert SERVICES["postgres"]["profiles"] == ["store"]
    assert "store" not in read(FOLDER / "visa.yaml")


def test_images_are_pinned() -> None:
    assert all(re.search(r":v?\d+\.\d+", service["image"]) for service in SERVICES.values())


def test_speculation_is_json() -> None:
    (speculation,) = [arg.partition("=")[2] for arg in SERVICES["vllm"]["command"] if arg.startswith("--speculative-config=")]
    assert json.loads(speculation)["method"] == "ngram"


def test_grafana_finds_source_and_dashboards() -> None:
    (source,) = read(FOLDER / "grafana" / "datasources.yaml")["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = read(FOLDER / "grafana" / "dashboards.yaml")["providers"]
    mounts = {mount["target"]: FOLDER / mount["source"] for mount in SERVICES["grafana"]["volumes"]}
    assert [path.name for path in mounts[provider["options"]["path"]].resolve().glob("*.json")] == ["visa-proxy.json"]
    rules = read(FOLDER / "prometheus.yml")["rule_files"]
    assert set(rules) < {mount["target"] for mount in SERVICES["prometheus"]["volumes"]}
