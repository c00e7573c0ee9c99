"""Logging of the commands that run for long."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def set_up_logs(level: int = logging.INFO) -> None:
    """To standard error: ours from `level` on, errors in red, everybody else's from WARNING on."""
    console = Console(stderr=True)
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False)
        layout = "%(message)s"
    else:  # one line a record, for collectors
        handler, layout = logging.StreamHandler(), "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format=layout)
    logging.getLogger("visa_proxy").setLevel(level)
