"""deploy/kubernetes: plain manifests."""

from __future__ import annotations

import json

from tests.deploy.charts import one, validated
from tests.deploy.places import DEPLOY, read_all

MANIFESTS = read_all(DEPLOY / "kubernetes" / "vllm.yaml")


def test_every_object_is_one_that_kubernetes_knows() -> None:
    assert validated(MANIFESTS) == {"PersistentVolumeClaim", "Service", "Deployment", "NetworkPolicy"}


def test_the_parts_of_the_example_fit_together() -> None:
    deployment, service = one(MANIFESTS, "Deployment", "vllm")["spec"], one(MANIFESTS, "Service", "vllm")["spec"]
    pod = deployment["template"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert one(MANIFESTS, "NetworkPolicy", "vllm")["spec"]["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    claims = {each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each}
    assert claims == {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "PersistentVolumeClaim"}
    (container,) = pod["spec"]["containers"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert {env["VLLM_LORA_RESOLVER_CACHE_DIR"], env["HF_HOME"]} < mounts
    assert not pod["spec"]["enableServiceLinks"], "VLLM_PORT, set for the Service of that name, would be taken for vLLM's own"
    assert {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == (
        dict.fromkeys(("startupProbe", "readinessProbe", "livenessProbe"), "/health")
    )


def test_only_the_proxy_reaches_vllm() -> None:
    (rule,) = one(MANIFESTS, "NetworkPolicy", "vllm")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "visa-proxy"}}}]


def test_speculation_is_json() -> None:
    args = one(MANIFESTS, "Deployment", "vllm")["spec"]["template"]["spec"]["containers"][0]["args"]
    (speculation,) = [arg.partition("=")[2] for arg in args if arg.startswith("--speculative-config=")]
    assert json.loads(speculation)["method"] == "ngram"
