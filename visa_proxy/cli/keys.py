"""`visa-proxy keys`: API keys of tenants."""

from __future__ import annotations

import json
import re

import click


@click.group("keys")
def keys() -> None:
    """Make API keys for tenants."""


@keys.command("create")
@click.argument("tenant")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def create(tenant: str, as_json: bool) -> None:
    """Make an API key for TENANT and print it, once, with the hash that goes into the tenant's policy.

    Nothing is written anywhere: only the hash is ever stored, so a lost key is replaced, not recovered.
    """
    from visa_proxy.policy.keys import create_key
    from visa_proxy.policy.schema import TENANT_PATTERN

    if not re.fullmatch(TENANT_PATTERN, tenant):
        raise click.UsageError(f"{tenant!r} is no tenant name; allowed: lower-case letters, digits and dashes, at most 63")
    key, digest = create_key()
    if as_json:
        click.echo(json.dumps({"tenant": tenant, "key": key, "hash": digest}))
        return
    click.echo(f"key for {tenant}, shown only now:\n\n  {key}\n")
    click.echo(f'add to api_keys in the policy of {tenant}:\n\n  - "{digest}"')
