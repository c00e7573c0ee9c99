"""`visa-proxy train`: one command per component."""

from __future__ import annotations

import click

from visa_proxy.cli.train_instruments import detector, facts, space, translator
from visa_proxy.cli.train_rewriter import rewriter
from visa_proxy.cli.train_tuning import HELP, command


@click.group()
def train() -> None:
    """Train detector, translator, a value space, facts or rewriter; each command writes weights and their MODEL_CARD.md."""


for each in (detector, translator, space, facts, rewriter, *map(command, HELP)):
    train.add_command(each)
