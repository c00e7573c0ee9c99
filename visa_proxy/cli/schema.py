"""`visa-proxy schema`: JSON schemas, for editors and CI."""

from __future__ import annotations

import json
from typing import Any, Literal

import click


@click.command("schema")
@click.argument("kind", type=click.Choice(["policy", "config"]))
def schema(kind: Literal["policy", "config"]) -> None:
    """Print the JSON schema (draft 2020-12) of tenant policies or of visa.yaml.

    For completion while you type, save it and put this on the first line of a policy:

    # yaml-language-server: $schema=policy.schema.json
    """
    click.echo(json.dumps(json_schema(kind), indent=2, ensure_ascii=False))


def json_schema(kind: Literal["policy", "config"]) -> dict[str, Any]:
    """The schema as a JSON object."""
    from visa_proxy.policy.config_schema import ConfigFile
    from visa_proxy.policy.schema import PolicyFile
    from visa_proxy.values import load_space

    model = PolicyFile if kind == "policy" else ConfigFile
    made = model.model_json_schema()
    if kind == "policy":
        names = list(load_space("schwartz").names)
        made["$defs"]["ProfileSpec"]["properties"]["values"]["propertyNames"] = {"enum": names}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": f"visa-proxy {kind}"}
