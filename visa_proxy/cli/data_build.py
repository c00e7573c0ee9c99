"""`visa-proxy data build`: preference data, annotated by a chat model, as a data set of value-conditioned rewrites."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visa_proxy.errors import ConfigError

if TYPE_CHECKING:
    from visa_proxy.training.vcr.build import Build

SHARE = click.FloatRange(0, 1)
PRICE = click.FloatRange(min=0)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@click.command("build")
@click.option("--data", type=FILE, required=True, help="Preferences: .jsonl or .jsonl.gz.")
@click.option("--url", required=True, help="The annotator: an OpenAI-compatible server, such as http://127.0.0.1:8002/v1")
@click.option("--model", required=True, help="What it is asked for.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable that holds its key.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the data set.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, show_default=True, help="Requests at a time.")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Of one annotation."
)
@click.option("--limit", type=click.IntRange(min=1), help="The first N pairs alone.")
@click.option("--lang", default="en", show_default=True, help="Which conversations are kept, by assigned_lang.")
@click.option("--explanation-column", default="{turn}_turn_explanation", show_default=True, help="Of conversations.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and stop.")
@click.option("--price-in", type=PRICE, help="Dollars per million prompt tokens.")
@click.option("--price-out", type=PRICE, help="Dollars per million completion tokens.")
@click.option("--yes", is_flag=True, help="Do not ask before starting.")
@click.option("--drop-ambiguous", type=SHARE, default=0.15, show_default=True, help="Share of pairs, the most ambiguous ones.")
@click.option("--min-shift", type=click.FloatRange(min=0), default=0.5, show_default=True, help="Least |Δv| of a pair.")
@click.option("--seed", default=0, show_default=True, help="Draws the order in which two answers are shown.")
@click.option("--retry-failed", is_flag=True, help="Ask again about pairs whose answer could not be read.")
def build(
    url: str,
    api_key_env: str | None,
    dry_run: bool,
    price_in: float | None,
    price_out: float | None,
    yes: bool,
    **options: Any,
) -> None:
    """Build triplets (source, target vector, rewritten) from preferences.

    A line of --data is {"prompt", "chosen", "rejected", "explanation"}, or a conversation of Community Alignment. A run that was stopped, or
    killed, goes on where it was: what the annotator has answered is not asked again.
    """
    from visa_proxy.training.vcr.build import Build, Settings

    _check(url, price_in, price_out)
    found = Build(Settings(url=url, api_key=_key(api_key_env), **options))
    requests = _announce(found, price_in, price_out)
    if dry_run:
        return
    if requests and not yes and sys.stdin.isatty():
        click.confirm("Go on?", abort=True)
    try:
        _annotate(found, requests)
    except KeyboardInterrupt:
        done = len(found.pairs) - len(found.pending())
        click.echo(
            f"stopped: {done} of {len(found.pairs)} pairs are done and kept; the same command goes on from there", err=True
        )
        click.get_current_context().exit(INTERRUPTED)
    written = found.write()
    for what, count in (("could not be read", written.failed), ("had no answer", written.unanswered)):
        if count:
            click.echo(f"{count} of {len(found.pairs)} pairs {what} and are left out", err=True)
    click.echo(
        f"wrote {found.settings.out}: " + ", ".join(f"{part} {count}" for part, count in written.parts.items()) + " samples"
    )


def _check(url: str, price_in: float | None, price_out: float | None) -> None:
    """Raises ConfigError, UsageError."""
    from yarl import URL

    try:
        address = URL(url)
        good = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(["--url: found something else; allowed: http://… or https://…"])
    if (price_in is None) != (price_out is None):
        raise click.UsageError("--price-in and --price-out go together")


def _key(name: str | None) -> str | None:
    """Raises ConfigError when the variable holds nothing."""
    if name is None:
        return None
    if not (key := os.environ.get(name, "").strip()):
        raise ConfigError([f"--api-key-env: the environment variable {name} is not set"])
    return key


def _announce(found: Build, price_in: float | None, price_out: float | None) -> int:
    """Prints what there is and what it would cost; the number of requests."""
    estimate = found.estimate()
    done = len(found.pairs) - estimate.requests
    click.echo(f"{len(found.pairs)} pairs, {found.explained} with an explanation" + (f", {done} done before" if done else ""))
    for why, count in found.skipped.items():
        click.echo(f"  skipped, {why}: {count}")
    cost = f"{estimate.requests} requests, about {estimate.prompt_tokens:,} prompt and {estimate.completion_tokens:,} completion tokens"
    if price_in is not None and price_out is not None:
        cost += f", ${estimate.dollars(price_in, price_out):,.2f}"
    click.echo(f"{cost} (estimated as characters / 4, every pair asked once)")
    return estimate.requests


def _annotate(found: Build, requests: int) -> None:
    """With a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("annotating", total=requests)
        asyncio.run(found.annotate(lambda: progress.advance(task)))
