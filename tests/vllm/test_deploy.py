"""deploy/: vLLM's own parser takes the arguments that are given to it there."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.vllm

DEPLOY = Path(__file__).parents[2] / "deploy"


def arguments() -> dict[str, list[str]]:
    """Those of each file."""
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    objects = yaml.safe_load_all((DEPLOY / "kubernetes" / "vllm.yaml").read_text())
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    (engine,) = yaml.safe_load((DEPLOY / "production-stack" / "values.yaml").read_text())["servingEngineSpec"]["modelSpec"]
    return {
        "compose": compose["services"]["vllm"]["command"],
        "kubernetes": deployment["spec"]["template"]["spec"]["containers"][0]["args"],
        "production-stack": [
            "--enable-lora",
            "--max-loras",
            str(engine["vllmConfig"]["maxLoras"]),
            *engine["vllmConfig"]["extraArgs"],
        ],
    }


@pytest.mark.parametrize("given", arguments().values(), ids=arguments())
def test_vllm_takes_the_arguments(given: list[str]) -> None:
    cli = import_module("vllm.entrypoints.launchers.cli_args")
    parser = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    parsed = cli.make_arg_parser(parser).parse_args(given)
    cli.validate_parsed_serve_args(parsed)
    assert parsed.enable_lora
    assert parsed.speculative_config["method"] == "ngram"


def test_ray_is_given_engine_arguments() -> None:
    known = {field.name for field in dataclasses.fields(import_module("vllm.engine.arg_utils").AsyncEngineArgs)}
    serve = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
    for model in serve["applications"][0]["args"]["llm_configs"]:
        assert model["engine_kwargs"].keys() <= known
