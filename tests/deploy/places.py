"""Where deployment files are, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from click.testing import CliRunner

from visa_proxy.cli.main import cli

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"


def read(path: Path) -> Any:
    """One YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_all(path: Path) -> list[Any]:
    """All YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def checked(*paths: Path) -> str:
    """What `visa-proxy check` prints of good files; fails with what it prints of others."""
    result = CliRunner().invoke(cli, ["check", *map(str, paths)])
    assert result.exit_code == 0, result.output
    return result.output.strip()


def variables(config: Any) -> set[str]:
    """The environment variables that a visa.yaml names."""
    if not isinstance(config, dict):
        return set()
    own = {value for key, value in config.items() if key.endswith("_key_env")}
    return own.union(*(variables(value) for value in config.values()))
