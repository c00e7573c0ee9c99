"""`visa-proxy train`: one command per component."""

from __future__ import annotations

import click

from visa_proxy.cli.train_instruments import detector, facts, space, translator
from visa_proxy.cli.train_rewriter import rewriter


@click.group()
def train() -> None:
    """Train detector, translator, a value space, facts or rewriter; each command writes weights and their MODEL_CARD.md."""


for command in (detector, translator, space, facts, rewriter):
    train.add_command(command)
