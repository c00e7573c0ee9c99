"""Which visa.yaml a plugin uses: its host hands it no options of our own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError

VARIABLE: Final = "VISA_CONFIG"


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """The absolute path that VISA_CONFIG names in `environ` (default the process's). Raises ConfigError when it names none."""
    given = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    if not given:
        raise ConfigError([f"environment variable {VARIABLE} is not set (or empty); allowed: the path of a visa.yaml"])
    return Path(given).expanduser().absolute()
