"""Logging of the commands that run for long."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler


def set_up_logs(level: int = logging.INFO) -> None:
    """To standard error: ours from `level` on, errors in red, everybody else's from WARNING on."""
    console = Console(stderr=True)
    handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False, highlighter=None)
    if not console.is_terminal:  # one line a record, for collectors
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s" if console.is_terminal else None)
    logging.getLogger("visa_proxy").setLevel(level)
