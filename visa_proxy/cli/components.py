"""`visa-proxy detect | translate | rewrite`: the components alone, on text from arguments or standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visa_proxy.detector.base import Reading
from visa_proxy.errors import RequestError
from visa_proxy.values import Target, ValueVector, load_space
from visa_proxy.values.load import distinct
from visa_proxy.yaml_problems import visible

CARRIES: Final = 0.15
"""A sentence that moves a value by less than this does not carry it."""
NOTHING: Final[Mapping[str, float]] = MappingProxyType({})

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _utf8(_: click.Context, param: click.Parameter, value: Any) -> Any:
    """Bytes that are no UTF-8 come as lone surrogates, which no model reads and no JSON holds. Raises RequestError."""
    try:
        " ".join([value] if isinstance(value, str) else value or ()).encode()
    except UnicodeEncodeError as error:
        named = param.opts[0] if isinstance(param, click.Option) else "TEXT"
        raise RequestError(f"{named} is not valid UTF-8") from error
    return value


_query = click.option("--query", callback=_utf8, default="", help="The question the text answers.")
_text = click.argument("text", callback=_utf8, nargs=-1)


@click.command()
@_text
@_query
@click.option(
    "--space", "spaces", multiple=True, help="Another value space to read: tone, inglehart-welzel, or a folder of your own."
)
@click.option("--explain", is_flag=True, help="Show which sentences carry which value.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the circumplex into this file (.svg, .png or .pdf)."
)
@_json
def detect(text: tuple[str, ...], query: str, spaces: tuple[str, ...], explain: bool, plot: Path | None, as_json: bool) -> None:
    """Measure the values that TEXT expresses, each -1 … 1."""
    from visa_proxy.cli import circumplex

    answer = _read(text)
    if plot is not None:
        circumplex.check(plot)

    async def run() -> Reading:
        from visa_proxy.detector.load import load_detector
        from visa_proxy.llm.instrument import Settings

        return await load_detector(Settings(spaces=distinct(spaces))).detect(query, answer)

    reading = _work("loading the detector", run())
    if plot is not None:
        circumplex.draw(reading.values, plot)
    vector = reading.values
    if as_json:
        data: dict[str, Any] = {"space": vector.space.name, "values": vector.to_dict()}
        data["confidence"] = {name: round(sure, 4) for name, sure in reading.confidence.items()}
        if explain:
            data["sentences"] = [{"text": each.sentence, "values": each.values.to_dict()} for each in reading.sentences]
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    _bars(vector, reading.confidence)
    if explain:
        _sentences(reading)


@click.command()
@_text
@_query
@click.option("--answer", callback=_utf8, default="", help="The answer the instruction is about.")
@_json
def translate(text: tuple[str, ...], query: str, answer: str, as_json: bool) -> None:
    """Turn the instruction TEXT into a value offset."""
    instruction = _read(text)

    async def run() -> Any:
        from visa_proxy.translator.load import load_translator

        return await load_translator().translate(query, answer, instruction)

    result = _work("loading the translator", run())
    if as_json:
        data = {"space": result.offset.space.name, "offset": result.offset.to_dict(), "confidence": round(result.confidence, 4)}
        click.echo(json.dumps(data | ({"note": result.note} if result.note else {}), indent=2))
        return
    _bars(result.offset)
    click.echo(f"confidence {result.confidence:.2f}")
    if result.note:
        click.echo(visible(result.note), err=True)


@click.command()
@_text
@_query
@click.option("--values", callback=_utf8, help="Levels, such as stimulation=1,security=-0.5")
@click.option("--mode", type=click.Choice(["offset", "target"]), default="offset", show_default=True)
@click.option("--instruction", callback=_utf8, help="What to change, in plain words.")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A visa.yaml; default: bundled models."
)
@_json
def rewrite(
    text: tuple[str, ...],
    query: str,
    values: str | None,
    mode: str,
    instruction: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Rewrite TEXT towards values, verified; prints TEXT itself when no rewrite passes (the reason goes to standard error)."""
    answer = _read(text)
    if values is None and instruction is None:
        raise RequestError("give --values, --instruction or both")
    if mode == "target" and (values is None or instruction is not None):
        raise RequestError("--mode target needs --values and takes no --instruction")
    target = None if values is None else Target("target" if mode == "target" else "offset", parse_values(values))
    instructions = () if instruction is None else (instruction,)

    async def run() -> Any:
        from visa_proxy.policy.schema import Shield as Settings
        from visa_proxy.server.components import standalone
        from visa_proxy.shield.answer import rewrite_whole
        from visa_proxy.shield.pipeline import Brief

        async with standalone(config) as shield:
            brief = Brief(query=query, target=target, settings=Settings(), instructions=instructions)
            return await rewrite_whole(shield, brief, answer)

    result = _work("starting the rewriter", run())
    if as_json:
        click.echo(json.dumps({"text": result.text, "visa": result.trace.to_dict()}, ensure_ascii=False, indent=2))
        return
    click.echo(visible(result.text, lines=True))
    click.echo(f"[{result.trace.status}]", err=True)


def parse_values(text: str) -> ValueVector:
    """`name=level,…` over Schwartz. Raises RequestError naming the part that is wrong."""
    space = load_space("schwartz")
    levels: dict[str, float] = {}
    for part in text.split(","):
        name, _, level = (piece.strip() for piece in part.partition("="))
        if name not in space.index:
            raise RequestError(f"--values: unknown value {name!r}; allowed: {', '.join(space.names)}")
        try:
            levels[name] = float(level)
        except ValueError as error:
            raise RequestError(f"--values: {name}: {level!r} is no number; allowed: -1 … 1") from error
        if not -1 <= levels[name] <= 1:
            raise RequestError(f"--values: {name}: {level} is out of range; allowed: -1 … 1")
    return ValueVector.of(space, levels)


def _read(text: tuple[str, ...]) -> str:
    """The arguments, or standard input. Raises RequestError when there is neither."""
    joined = " ".join(text)
    if not joined and not sys.stdin.isatty():
        try:
            joined = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise RequestError("standard input is not valid UTF-8") from error
    if not joined.strip():
        raise RequestError("no text: give it as an argument or on standard input")
    return joined


def _work(what: str, job: Coroutine[Any, Any, Any]) -> Any:
    console = Console(stderr=True)
    with console.status(f"{what} …"):
        return asyncio.run(job)


def _bars(vector: ValueVector, sure: Mapping[str, float] = NOTHING) -> None:
    table = Table(box=None, show_header=False)
    for name, level in vector.to_dict(digits=2).items():
        bar = "█" * round(abs(level) * 20)
        confidence = [f"{sure[name]:.0%} sure"] if name in sure else []
        table.add_row(name, f"{level:+.2f}", *confidence, f"[green]{bar}" if level > 0 else f"[red]{bar}")
    Console().print(table)


def _sentences(reading: Reading) -> None:
    """Each sentence with the values it carries, strongest first."""
    console = Console()
    for each in reading.sentences:
        levels = sorted(each.values.to_dict(digits=2).items(), key=lambda pair: -abs(pair[1]))
        carried = [f"[{'green' if v > 0 else 'red'}]{name} {v:+.2f}[/]" for name, v in levels if abs(v) >= CARRIES]
        console.print(
            f"{', '.join(carried) or '[dim]–[/]'}  {escape(visible(each.sentence, lines=True))}", soft_wrap=True, highlight=False
        )
