"""`visa-proxy experiment`: what A/B tests of profiles have shown so far."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visa_proxy.errors import RequestError

if TYPE_CHECKING:
    from visa_proxy.experiments.figures import Report
    from visa_proxy.store.read import Reader

FORMATS = {".md": "markdown", ".html": "html", ".json": "json"}


def _moment(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds since 1970. Raises RequestError."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        message = (
            f"{param.opts[0]}: found {value[:40]!r}, allowed: a date or time such as 2026-01-31 or 2026-01-31T09:00:00+01:00"
        )
        raise RequestError(f"{message}; UTC where it does not say") from error


_store = click.option("--store", metavar="URL", help="sqlite:///visa.db or postgresql://…; default: that of the config.")
_config = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A visa.yaml, which names the store and the policies. Default: ./visa.yaml, if it is there.",
)


@click.group()
def experiment() -> None:
    """Read what the arms of an experiment did."""


@experiment.command("list")
@_store
@_config
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def listing(store: str | None, config: Path | None, tenant: str | None, as_json: bool) -> None:
    """List the experiments that the store has requests of."""
    with _reader(store, _found(config, store)) as reader:
        found = reader.experiments(tenant)
    if as_json:
        click.echo(json.dumps([{"tenant": whose, "experiment": name} for whose, name in found], ensure_ascii=False, indent=2))
        return
    for whose, name in found:
        click.echo(f"{whose}  {name}")
    if not found:
        click.echo("no experiment has requests in this store", err=True)


@experiment.command()
@_store
@_config
@click.option("--tenant", required=True)
@click.option("--experiment", "name", required=True)
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="Policy file or folder with the arms' weights; default: those of the config. Without: equal weights.",
)
@click.option("--control", metavar="ARM", help="What the others are compared with; default: the policy's first arm.")
@click.option("--metric", help="The primary one, such as feedback, thumbs, similarity, adapted, consistency, latency.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of a false alarm, over all arms together.")
@click.option("--effect", type=float, help="How many units would it take to find this difference of the metric?")
@click.option("--since", callback=_moment, metavar="TIME", help="Requests from then on; ISO 8601, UTC where it does not say.")
@click.option("--until", callback=_moment, metavar="TIME", help="Requests before then.")
@click.option("--format", "kind", type=click.Choice(list(FORMATS.values())), help="Default: by the name of --out, else markdown.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write this file; plots of Markdown go beside it.")
def report(
    store: str | None,
    config: Path | None,
    tenant: str,
    name: str,
    policies: Path | None,
    since: float | None,
    until: float | None,
    kind: str | None,
    as_json: bool,
    out: Path | None,
    **options: Any,
) -> None:
    """Figures of an experiment's arms, with intervals that may be looked at every day."""
    from visa_proxy.experiments.collect import collect
    from visa_proxy.experiments.report import analyse

    kind = "json" if as_json else kind or FORMATS.get(out.suffix if out else "", "markdown")
    if out is not None and not out.parent.is_dir():
        raise RequestError(f"--out: there is no folder {out.parent}")
    config = _found(config, store)
    weights = _weights(policies, config, tenant, name)
    with _reader(store, config) as reader, _progress("reading the store") as tell:
        known = reader.experiments(tenant)
        if (tenant, name) not in known and weights is None:
            names = ", ".join(each for _, each in known) or "none"
            raise RequestError(f"--experiment: the store has no request of {name!r} of the tenant {tenant!r}; it has: {names}")
        rows = collect(reader, tenant, name, since=since, until=until, read=tell)
    with _progress("computing"):
        found = analyse(rows, tenant=tenant, experiment=name, weights=weights, **options)
        text = _text(found, kind, out)
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        _write(out, text)


def _text(found: Report, kind: str, out: Path | None) -> str:
    """The report in the format; plots of Markdown are written beside `out`."""
    if kind == "json":
        return json.dumps(found.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    if kind == "html":
        from visa_proxy.experiments.html import html

        return html(found)
    from visa_proxy.experiments.markdown import markdown

    if out is None:
        return markdown(found)
    from visa_proxy.experiments.plots import PLOTS, draw

    pictures = {name: draw(name, found) for name in PLOTS}
    files = {name: f"{out.stem}-{name}.svg" for name, picture in pictures.items() if picture}
    for name, file in files.items():
        _write(out.with_name(file), pictures[name])
    return markdown(found, files)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out: cannot write {file}: {error.strerror}") from error


def _found(config: Path | None, store: str | None) -> Path | None:
    """The config that is meant. Raises UsageError when there is neither config nor store."""
    usual = Path("visa.yaml")
    if config is None and store is None:
        if not usual.is_file():
            raise click.UsageError("which store? There is no ./visa.yaml; give --store URL or --config FILE")
        return usual
    return config


def _reader(store: str | None, config: Path | None) -> Reader:
    from visa_proxy.store.read import Reader

    if store is None:
        assert config is not None
        store = _store_of(config)
    return Reader(store)


def _store_of(config: Path) -> str:
    """The URL of a config's store. Raises RequestError when it has none."""
    from visa_proxy.policy.config import parse_config, store_of

    url = store_of(*parse_config(config))
    if url is None:
        raise RequestError(f"{config}: there is no store; add a line such as  store: sqlite:///visa.db  and restart the proxy")
    return url


def _weights(policies: Path | None, config: Path | None, tenant: str, name: str) -> Mapping[str, float] | None:
    """Arm to share; None where no policy says. Raises ConfigError for a policy that is wrong, RequestError for one that is not there."""
    from visa_proxy.experiments.weights import policy_of
    from visa_proxy.policy.config import read_config
    from visa_proxy.policy.load import policy_files
    from visa_proxy.policy.spaces import measured_space, named_spaces
    from visa_proxy.values.load import bundled_spaces

    if policies is not None:
        where = policies
    elif config is not None:
        where = config.parent / read_config(config).policies
    else:
        return None
    space = measured_space(named_spaces(config) if config is not None else bundled_spaces())
    found = policy_of(tenant, policy_files(where) if where.is_dir() else [where], space)
    if found is None:
        if policies is None:
            return None  # a tenant that is gone; its requests are still there
        raise RequestError(f"--policies: there is no policy of the tenant {tenant!r} in {where}")
    return next((each.shares for each in found.experiments if each.name == name), None)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Any]:
    """Shows on standard error that something goes on; gives what to call with the rows so far."""
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda rows: status.update(f"{what}: {rows:,} requests …")
