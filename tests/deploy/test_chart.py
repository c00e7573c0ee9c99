"""deploy/helm: what the chart makes of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.charts import CHART, OLDEST, Manifest, Values, one, render, validated
from tests.deploy.places import DEPLOY, checked, read, variables
from visa_proxy import __version__

POLICY = """\
tenant: acme
api_keys: ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
default_profile: off
profiles: {off: passthrough}
"""
VLLM = {"url": "http://vllm:8000/v1", "model": "base", "api_key_env": "VLLM_API_KEY"}


def values(**changes: Any) -> Values:
    return {
        "secretName": "keys",
        "config": {"bases": {"default": VLLM}, "rewriter": VLLM},
        "policies": {"acme.yaml": POLICY},
        **changes,
    }


def pod(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(manifests: list[Manifest]) -> Manifest:
    found: Manifest = pod(manifests)["containers"][0]
    return found


def test_the_chart_is_that_of_this_version() -> None:
    chart = read(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_helm_finds_nothing_to_complain_about() -> None:
    helm = pytest.importorskip("helm_python")
    report = helm.lint(CHART, values(), strict=True, kube_version=f"v{OLDEST}.0")
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_every_object_is_one_that_kubernetes_knows() -> None:
    plain = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}
    assert validated(render(values())) == plain | {"HorizontalPodAutoscaler"}
    assert validated(render(values(autoscaling={"enabled": False}))) == plain
    everything = values(
        autoscaling={"inFlight": 30},
        monitoring={"enabled": True, "labels": {"release": "prometheus"}},
        imagePullSecrets=[{"name": "registry"}],
        nodeSelector={"pool": "cpu"},
        tolerations=[{"key": "cpu", "operator": "Exists", "effect": "NoSchedule"}],
        podAnnotations={"team": "brands"},
        disruption={"maxUnavailable": None, "minAvailable": "50%"},
    )
    assert validated(render(everything, name="two", namespace="other")) == plain | {"HorizontalPodAutoscaler"}


def test_the_configmaps_hold_what_the_proxy_reads(tmp_path: Path) -> None:
    manifests = render(values(config={"server": {"drain_s": 60}, "bases": {"default": VLLM}, "rewriter": VLLM}))
    mounts = {each["name"]: each for each in container(manifests)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(manifests)["volumes"]}
    assert all("subPath" not in each for each in mounts.values()), "such a file never changes"
    for name in ("config", "policies"):
        folder = tmp_path / mounts[name]["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        for file, text in one(manifests, "ConfigMap", volumes[name]["configMap"]["name"])["data"].items():
            (folder / file).write_text(text)
    config = tmp_path / container(manifests)["args"][-1].lstrip("/")
    settings = read(config)
    assert settings["server"] == {"host": "0.0.0.0", "port": 8080, "drain_s": 60}
    assert settings["policies"] == mounts["policies"]["mountPath"]
    assert checked(config, tmp_path / settings["policies"].lstrip("/")) == "ok: 1 policy"


def test_the_pod_may_do_as_little_as_possible() -> None:
    manifests = render(values())
    spec, main = pod(manifests), container(manifests)
    assert spec["automountServiceAccountToken"] is one(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == one(manifests, "ServiceAccount")["metadata"]["name"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in main["resources"] and "requests" in main["resources"]
    assert main["envFrom"] == [{"secretRef": {"name": "keys"}}], "secrets come from a Secret and stand nowhere else"


def test_probes_ask_what_the_proxy_answers() -> None:
    main = container(render(values()))
    paths = {name: main[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert main["ports"] == [{"name": "http", "containerPort": 8080}]


@pytest.mark.parametrize("drain_s", [None, 0.5, 120])
def test_requests_in_flight_have_their_time(drain_s: float | None) -> None:
    server = {} if drain_s is None else {"drain_s": drain_s}
    manifests = render(values(config={"server": server, "bases": {"default": VLLM}, "rewriter": VLLM}))
    pause = container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(manifests)["terminationGracePeriodSeconds"] > pause + (30 if drain_s is None else drain_s)


def test_only_a_new_config_makes_new_pods() -> None:
    def template(**changes: Any) -> Manifest:
        found: Manifest = one(render(values(**changes)), "Deployment")["spec"]["template"]
        return found

    other = {**VLLM, "url": "http://other:8000/v1"}
    assert template(policies={"acme.yaml": POLICY + "limits: {concurrent: 5}\n"}) == template()
    assert template(config={"bases": {"default": other}, "rewriter": VLLM}) != template()


def test_only_the_gateway_and_the_scraper_may_call_and_only_dns_and_vllm_be_called() -> None:
    policy = one(render(values(monitoring={"enabled": True})), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = policy["ingress"]
    namespaces = [each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in ingress["from"]]
    assert namespaces == ["gateway", "monitoring"]
    assert ingress["ports"] == [{"port": "http", "protocol": "TCP"}]
    dns, vllm = policy["egress"]
    assert {each["port"] for each in dns["ports"]} == {53}
    assert vllm["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "vllm"}}}]
    assert [each["namespaceSelector"] for each in one(render(values()), "NetworkPolicy")["spec"]["ingress"][0]["from"]] == [
        {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}
    ]


def test_pods_are_counted_by_the_autoscaler_or_by_hand() -> None:
    scaled = render(values(autoscaling={"inFlight": 30, "maxReplicas": 4}))
    scaler = one(scaled, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in one(scaled, "Deployment")["spec"], "every upgrade would set the autoscaler back"
    assert scaler["scaleTargetRef"]["name"] == one(scaled, "Deployment")["metadata"]["name"]
    assert scaler["maxReplicas"] == 4
    assert [each["type"] for each in scaler["metrics"]] == ["Resource", "Pods"]
    assert one(render(values(autoscaling={"enabled": False}, replicas=3)), "Deployment")["spec"]["replicas"] == 3


def test_monitoring_brings_the_same_alerts_and_dashboard() -> None:
    manifests = render(values(monitoring={"enabled": True, "labels": {"release": "prometheus"}}))
    assert one(manifests, "PrometheusRule")["spec"] == read(DEPLOY / "prometheus" / "alerts.yaml")
    dashboard = one(manifests, "ConfigMap", "visa-proxy-dashboard")["data"]["visa-proxy.json"]
    assert yaml.safe_load(dashboard) == read(DEPLOY / "grafana" / "visa-proxy.json")
    monitor = one(manifests, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= one(manifests, "Service")["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == one(manifests, "Service")["spec"]["ports"][0]["name"]


def test_existing_policies_are_mounted_as_they_are() -> None:
    manifests = render({**values(policiesConfigMap="brands"), "policies": {}})
    volumes = {each["name"]: each for each in pod(manifests)["volumes"]}
    assert volumes["policies"]["configMap"]["name"] == "brands"
    assert [each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"] == ["visa-proxy"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policies": {}}, "policies: at least one tenant's file, or policiesConfigMap"),
        ({"policiesConfigMap": "brands"}, "policies and policiesConfigMap: set one of them"),
        ({"policies": {"acme.txt": POLICY}}, "acme.txt"),
        ({"config": {"bases": {}, "rewriter": VLLM}}, "/config/bases"),
        ({"config": {"server": {"port": 9000}, "bases": {"default": VLLM}, "rewriter": VLLM}}, "/config/server"),
        ({"networkPolicy": {"from": []}}, "networkPolicy.from: at least one peer"),
        ({"replica": 3}, "replica"),
    ],
)
def test_bad_values_are_refused_with_a_word(changes: Values, said: str) -> None:
    pytest.importorskip("helm_python")
    with pytest.raises(Exception, match=said):
        render(values(**changes))


def test_the_variables_of_a_config_are_found() -> None:
    assert variables({"server": {"admin_key_env": "A"}, "bases": {"x": VLLM}}) == {"A", "VLLM_API_KEY"}
