"""`visa-proxy serve`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from visa_proxy.cli.logs import set_up_logs


@click.command()
@click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="visa.yaml",
    show_default=True,
    help="Server config.",
)
@click.option("--host", help="Address to listen on; overrides the config.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; overrides the config.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve; overrides the config.")
def serve(path: Path, host: str | None, port: int | None, workers: int | None) -> None:
    """Run the proxy from a visa.yaml until SIGTERM or Ctrl-C."""
    from visa_proxy.policy.config import load_config
    from visa_proxy.server.app import create_app
    from visa_proxy.server.run import run

    set_up_logs()
    config = load_config(path)
    port = config.port if port is None else port
    config = dataclasses.replace(config, host=host or config.host, port=port, workers=workers or config.workers)
    app = create_app(config)  # what is wrong with the policies is said once, and before anything starts
    if config.workers > 1:
        from visa_proxy.server.workers import parent

        sys.exit(parent.serve(config, [sys.executable, "-m", "visa_proxy.cli.worker"]))
    run(app, host=config.host, port=config.port, drain_s=config.drain_s)
