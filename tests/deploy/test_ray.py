"""deploy/ray: rewriters on Ray Serve. Ray itself is no dependency; where it is installed, its own schema has the word."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.deploy.places import DEPLOY, checked, read

SERVE = read(DEPLOY / "ray" / "serve.yaml")
(APPLICATION,) = SERVE["applications"]
(MODEL,) = APPLICATION["args"]["llm_configs"]

KEYS: Final[dict[str, Any]] = {
    "model_loading_config": {"model_id", "model_source"},
    "accelerator_type": None,
    "engine_kwargs": {"enable_lora", "max_loras", "max_lora_rank", "enable_prefix_caching", "speculative_config"},
    "lora_config": {"dynamic_lora_loading_path", "max_num_adapters_per_replica"},
    "deployment_config": {"max_ongoing_requests", "autoscaling_config"},
}
"""Keys that were read in Ray's LLMConfig and vLLM's engine arguments."""


def test_every_key_is_one_that_ray_knows() -> None:
    assert MODEL.keys() <= KEYS.keys()
    assert all(set(MODEL[key]) <= known for key, known in KEYS.items() if known is not None)
    assert APPLICATION["import_path"] == "ray.serve.llm:build_openai_app"


def test_ray_takes_it() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed")
    schema.ServeDeploySchema.model_validate(SERVE)


def test_replicas_take_what_they_are_scaled_by() -> None:
    deployment = MODEL["deployment_config"]
    scaling = deployment["autoscaling_config"]
    assert scaling["target_ongoing_requests"] < deployment["max_ongoing_requests"], "it would never be reached"
    assert scaling["min_replicas"] < scaling["max_replicas"]
    assert MODEL["engine_kwargs"]["max_loras"] <= MODEL["lora_config"]["max_num_adapters_per_replica"]


def test_the_proxy_asks_for_that_model() -> None:
    assert checked(DEPLOY / "ray" / "visa.yaml") == "ok: 0 policies"
    rewriter = read(DEPLOY / "ray" / "visa.yaml")["rewriter"]
    assert rewriter["model"] == MODEL["model_loading_config"]["model_id"]
    assert rewriter["url"].endswith(f":{SERVE['http_options']['port']}/v1")
