"""`visa-proxy`: the command line. Each command is loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from visa_proxy import __version__
from visa_proxy.errors import ConfigError, VisaError

COMMANDS: Final = {
    "demo": ("visa_proxy.cli.demo:demo", "Try it: a sample base, three tenants, the bundled rewriter."),
    "serve": ("visa_proxy.cli.serve:serve", "Run the proxy from a visa.yaml."),
    "check": ("visa_proxy.cli.check:check", "Validate policies and server config."),
    "schema": ("visa_proxy.cli.schema:schema", "Print the JSON schema of a policy or config file."),
    "keys": ("visa_proxy.cli.keys:keys", "Create tenant keys."),
    "detect": ("visa_proxy.cli.components:detect", "Measure the values of a text."),
    "translate": ("visa_proxy.cli.components:translate", "Turn an instruction into a value offset."),
    "rewrite": ("visa_proxy.cli.components:rewrite", "Rewrite a text towards values, verified."),
    "data": ("visa_proxy.cli.data:data", "Write the training sets of the components."),
    "eval": ("visa_proxy.cli.eval:evaluate", "Compare rewriters on frozen cases."),
    "experiment": ("visa_proxy.cli.experiment:experiment", "What A/B tests of profiles have shown so far."),
    "train": ("visa_proxy.cli.train:train", "Train the bundled weights again, or your own."),
}


class Lazy(click.Group):
    """A group that imports a command only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VisaError as error:
            from visa_proxy.yaml_problems import visible

            lines = error.problems if isinstance(error, ConfigError) else str(error).split("\n")
            click.echo("visa-proxy: " + "\n".join(map(visible, lines)), err=True)
            ctx.exit(2)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="visa-proxy")
def cli() -> None:
    """Value injection via shielded adaptation, in front of any OpenAI-compatible model."""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(cli())
