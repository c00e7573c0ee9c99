"""Heavy, optional dependencies: imported when used, never when visa_proxy is imported."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from visa_proxy.errors import MissingExtra


def need(module: str, *, extra: str) -> Any:
    """Import `module`, or raise `MissingExtra` naming the pip line that provides it.

    An ImportError from inside an installed module is not swallowed: only the absence of `module` itself counts as missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.split(".")[0] == error.name.split(".")[0]:
            raise MissingExtra(f'{module} is not installed: run  pip install "visa-proxy[{extra}]"') from error
        raise


def installed(module: str, *, extra: str) -> None:
    """Raise `MissingExtra` unless `module` can be imported; does not import it (a child process will)."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(f'{module} is not installed: run  pip install "visa-proxy[{extra}]"')
