"""`visa-proxy demo`."""

from __future__ import annotations

from pathlib import Path

import click

from visa_proxy.cli.logs import set_up_logs


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--policies", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Your own policies instead of the examples."
)
@click.option("--base-url", help="A real base model instead of the sample one: an OpenAI-compatible URL ending in /v1.")
@click.option("--base-model", help="The model to ask it for, where a request names none.")
@click.option("--base-key-env", default="BASE_API_KEY", show_default=True, help="Environment variable with its API key.")
def demo(host: str, port: int, policies: Path | None, base_url: str | None, base_model: str | None, base_key_env: str) -> None:
    """Start the embedded default: no network, no GPU, no key needed."""
    import uvloop

    from visa_proxy.demo.run import run

    set_up_logs()
    uvloop.run(run(host=host, port=port, policies=policies, base_url=base_url, base_model=base_model, base_key_env=base_key_env))
