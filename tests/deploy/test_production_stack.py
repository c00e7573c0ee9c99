"""deploy/production-stack: values of a chart that is not here, so each key is one that was read in its values.schema.json."""

from __future__ import annotations

from typing import Any, Final

import jsonschema
import pytest

from tests.deploy.charts import one, render, validated
from tests.deploy.places import DEPLOY, checked, read

FOLDER = DEPLOY / "production-stack"
VALUES = read(FOLDER / "values.yaml")

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer"}
SWITCH: Final = {"type": "boolean"}
OBJECTS: Final = {"type": "array", "items": {"type": "object"}}


def keys(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


VLLM = keys(enablePrefixCaching=SWITCH, maxModelLen=COUNT, maxLoras=COUNT, extraArgs={"type": "array", "items": TEXT})
MODEL = keys(
    "name repository tag modelURL replicaCount requestCPU requestMemory",
    name=TEXT,
    repository=TEXT,
    tag=TEXT,
    modelURL=TEXT,
    replicaCount=COUNT,
    requestCPU=COUNT,
    requestMemory=TEXT,
    requestGPU=COUNT,
    enableLoRA=SWITCH,
    vllmConfig=VLLM,
    env=OBJECTS,
    extraVolumes=OBJECTS,
    extraVolumeMounts=OBJECTS,
)
ENGINES = keys(
    "modelSpec",
    runtimeClassName=TEXT,
    vllmApiKey=keys(secretName=TEXT, secretKey=TEXT),
    modelSpec={"type": "array", "items": MODEL},
)
ROUTER = keys(
    routingLogic={"enum": ["roundrobin", "session", "prefixaware"]}, servicePort=COUNT, serviceType={"enum": ["ClusterIP"]}
)


def test_every_key_is_one_that_the_chart_knows() -> None:
    schema = keys("servingEngineSpec routerSpec", servingEngineSpec=ENGINES, routerSpec=ROUTER)
    jsonschema.validate(VALUES, schema)
    with pytest.raises(jsonschema.ValidationError, match="enableLora"):
        jsonschema.validate({"servingEngineSpec": {"modelSpec": [{"enableLora": True}]}, "routerSpec": {}}, schema)


def test_adapters_are_where_they_are_said_to_be() -> None:
    (model,) = VALUES["servingEngineSpec"]["modelSpec"]
    args = model["vllmConfig"]["extraArgs"]
    after = args[args.index("--lora-modules") + 1 :]
    adapters = dict(arg.split("=") for arg in after if not arg.startswith("--"))
    (mount,) = model["extraVolumeMounts"]
    assert adapters and all(path == f"{mount['mountPath']}/{name}" for name, path in adapters.items())
    assert model["enableLoRA"] and len(adapters) <= model["vllmConfig"]["maxLoras"]
    assert "pvcStorage" not in model, "with both, the chart adds a sidecar that downloads adapters"


def test_the_proxy_in_front_asks_the_router_for_what_the_engines_serve() -> None:
    manifests = render(read(FOLDER / "visa-proxy.yaml"))
    assert "Deployment" in validated(manifests)
    config = DEPLOY / "production-stack" / "visa-proxy.yaml"
    base = read(config)["config"]["bases"]["default"]
    (model,) = VALUES["servingEngineSpec"]["modelSpec"]
    assert base["model"] == read(config)["config"]["rewriter"]["model"] == model["modelURL"]
    assert VALUES["routerSpec"]["servicePort"] == 80, "no port in the URLs"
    key = VALUES["servingEngineSpec"]["vllmApiKey"]
    assert (read(config)["secretName"], base["api_key_env"]) == (key["secretName"], key["secretKey"])


def test_what_the_chart_makes_of_it_is_a_good_config(tmp_path: Any) -> None:
    manifests = render(read(FOLDER / "visa-proxy.yaml"))
    (tmp_path / "visa.yaml").write_text(one(manifests, "ConfigMap")["data"]["visa.yaml"])
    assert checked(tmp_path / "visa.yaml") == "ok: 0 policies"
