"""The Helm chart, rendered by Helm's own engine, and manifests checked against Kubernetes' own schemas."""

from __future__ import annotations

from typing import Any, Final

import pytest
import yaml

from tests.deploy.places import DEPLOY

CHART: Final = DEPLOY / "helm" / "visa-proxy"
OLDEST: Final = "1.30"
"""The first Kubernetes that the chart takes."""

Manifest = dict[str, Any]
Values = dict[str, Any]


def render(values: Values, *, name: str = "visa-proxy", namespace: str = "visa") -> list[Manifest]:
    """All objects of the chart, as `helm template` writes them."""
    helm = pytest.importorskip("helm_python", reason="has no wheel for this machine")
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered: dict[str, str] = chart.render(values, name=name, namespace=namespace)
    documents = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [found for text in documents for found in yaml.safe_load_all(text) if found]


def one(manifests: list[Manifest], kind: str, name: str = "visa-proxy") -> Manifest:
    """The object of that kind and name."""
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, [(each["kind"], each["metadata"]["name"]) for each in manifests]
    return found[0]


def validated(manifests: list[Manifest]) -> set[str]:
    """The kinds, each object of which Kubernetes' schemas know and take, unknown keys refused; those of operators are left out."""
    import kubernetes_validate

    kinds = set()
    for each in manifests:
        if "monitoring.coreos.com" not in each["apiVersion"]:
            for version in (OLDEST, kubernetes_validate.latest_version()):
                kubernetes_validate.validate(each, version, strict=True)
            kinds.add(each["kind"])
    return kinds
