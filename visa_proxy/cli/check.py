"""`visa-proxy check`: are policies and config right, before they go anywhere."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from visa_proxy.policy.resolve import PolicySet


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A visa.yaml: checked too, and says which bases and value spaces policies may name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check(paths: tuple[Path, ...], config: Path | None, as_json: bool) -> None:
    """Check tenant policies and the server config.

    PATHS are files or folders of policies; default ./policies and ./visa.yaml, whichever exist. Environment variables
    are not looked at. Exits 0 when all is well, and says what experiments there are; else 2 with one line per problem.
    """
    usual = Path("policies"), *([Path("visa.yaml")] if config is None else [])
    chosen = paths or tuple(path for path in usual if path.exists())
    if not chosen and config is None:
        raise click.UsageError("nothing to check: there is neither ./policies nor ./visa.yaml; name files or folders")
    from visa_proxy.policy.summary import line, summaries

    count, policies, problems = _check(chosen, config)
    experiments = summaries(policies, time.time()) if policies is not None else []
    if as_json:
        parsed = [_parsed(problem) for problem in problems]
        said = {"ok": not problems, "policies": count, "problems": parsed, "experiments": experiments}
        click.echo(json.dumps(said, ensure_ascii=False))
    elif problems:
        _print(problems)
    else:
        click.echo("\n".join([f"ok: {count} {'policy' if count == 1 else 'policies'}", *map(line, experiments)]))
    sys.exit(2 if problems else 0)


def _check(paths: tuple[Path, ...], config: Path | None) -> tuple[int, PolicySet | None, list[str]]:
    """How many policies were read, what they say (None while one is wrong), and all problems.

    A config also says which bases and dimensions policies may name.
    """
    from visa_proxy.errors import ConfigError
    from visa_proxy.policy.config import missing_folders, parse_config, spaces_of
    from visa_proxy.policy.load import load_policies, policy_files
    from visa_proxy.policy.spaces import measured_space

    policies: list[Path] = []
    problems: list[str] = []
    bases: set[str] = set()
    spaces: list[str] = []
    wrong: list[str] = []
    known = False
    loaded: PolicySet | None = None
    for path in paths if config is None else (config, *paths):
        try:
            if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises OSError for a name that is too long
                policies += policy_files(path)
            elif path == config or _is_config(path):
                document, file = parse_config(path)
                bases |= file.bases.keys()
                known = True
                problems += missing_folders(document, file)
                names, wrong_here = spaces_of(document, file)
                spaces += names
                wrong += wrong_here
            else:
                policies.append(path)
        except ConfigError as error:
            problems += error.problems
    try:
        # While a space is wrong, nothing is said of the policies: what they may name is not known.
        if not wrong:
            loaded = load_policies(dict.fromkeys(policies), bases=sorted(bases) if known else None, space=measured_space(spaces))
    except ConfigError as error:
        problems += error.problems
    return len(set(policies)), loaded, list(dict.fromkeys(problems + wrong))


def _is_config(path: Path) -> bool:
    """By what the file holds; a file that cannot be parsed, by its name."""
    from visa_proxy.errors import ConfigError
    from visa_proxy.policy.document import read_document

    try:
        data = read_document(path).data
    except ConfigError:
        return path.stem == "visa"
    return isinstance(data, dict) and "tenant" not in data and (path.stem == "visa" or "bases" in data)


def _parsed(problem: str) -> dict[str, str | int]:
    match = re.match(r"(?s)(.*?):(\d+):(\d+): (.*)", problem)
    if match is None:
        return {"message": problem}
    file, line, column, message = match.groups()
    return {"file": file, "line": int(line), "column": int(column), "message": message}


def _print(problems: list[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    from visa_proxy.yaml_problems import visible

    console = Console(soft_wrap=True)
    for problem in problems:
        console.print(Text(visible(problem), style="red" if console.is_terminal else ""))
