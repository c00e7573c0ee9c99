"""`visa-proxy schema`: JSON schemas, for editors and CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click


@click.command("schema")
@click.argument("kind", type=click.Choice(["policy", "config"]))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A visa.yaml, whose value spaces policies may use; default: Schwartz's values alone.",
)
def schema(kind: Literal["policy", "config"], config: Path | None) -> None:
    """Print the JSON schema (draft 2020-12) of tenant policies or of visa.yaml.

    For completion while you type, save it and put this on the first line of a policy:

    # yaml-language-server: $schema=policy.schema.json
    """
    click.echo(json.dumps(json_schema(kind, config), indent=2, ensure_ascii=False))


def json_schema(kind: Literal["policy", "config"], config: Path | None = None) -> dict[str, Any]:
    """The schema as a JSON object. Raises ConfigError when `config`, a visa.yaml, is wrong."""
    from visa_proxy.policy.config_schema import ConfigFile
    from visa_proxy.policy.schema import PolicyFile
    from visa_proxy.policy.spaces import measured_space, named_spaces

    model = PolicyFile if kind == "policy" else ConfigFile
    made = model.model_json_schema()
    if kind == "policy":
        names = list(measured_space(() if config is None else named_spaces(config)).names)
        for levels in (made["$defs"]["ProfileSpec"]["properties"]["values"], made["properties"]["bounds"]):
            levels["propertyNames"] = {"enum": names}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": f"visa-proxy {kind}"}
