"""`visa-proxy detect | translate | rewrite`: the components alone, on text from arguments or standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from visa_proxy.errors import RequestError
from visa_proxy.values import Target, ValueVector, load_space

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_query = click.option("--query", default="", help="The question the text answers.")
_text = click.argument("text", nargs=-1)


@click.command()
@_text
@_query
@_json
def detect(text: tuple[str, ...], query: str, as_json: bool) -> None:
    """Measure the values that TEXT expresses, each -1 … 1."""
    answer = _read(text)

    async def run() -> ValueVector:
        from visa_proxy.detector.load import load_detector
        from visa_proxy.encoder.minilm import SentenceEncoder

        return await load_detector({}, SentenceEncoder()).detect(query, answer)

    vector = _work("loading the detector", run())
    _print({"space": vector.space.name, "values": vector.to_dict()}, {"value": vector}, as_json)


@click.command()
@_text
@_query
@click.option("--answer", default="", help="The answer the instruction is about.")
@_json
def translate(text: tuple[str, ...], query: str, answer: str, as_json: bool) -> None:
    """Turn the instruction TEXT into a value offset."""
    instruction = _read(text)

    async def run() -> Any:
        from visa_proxy.encoder.minilm import SentenceEncoder
        from visa_proxy.translator.load import load_translator

        return await load_translator({}, SentenceEncoder()).translate(query, answer, instruction)

    result = _work("loading the translator", run())
    data = {"space": result.offset.space.name, "offset": result.offset.to_dict(), "confidence": round(result.confidence, 4)}
    _print(data, {"offset": result.offset}, as_json)
    if not as_json:
        click.echo(f"confidence {result.confidence:.2f}")


@click.command()
@_text
@_query
@click.option("--values", help="Levels, such as stimulation=1,security=-0.5")
@click.option("--mode", type=click.Choice(["offset", "target"]), default="offset", show_default=True)
@click.option("--instruction", help="What to change, in plain words.")
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
    click.echo(result.text)
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


def _print(data: dict[str, Any], columns: dict[str, ValueVector], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(data, indent=2))
        return
    table = Table(box=None, show_header=False)
    for vector in columns.values():
        for name, level in vector.to_dict(digits=2).items():
            bar = "█" * round(abs(level) * 20)
            table.add_row(name, f"{level:+.2f}", f"[green]{bar}" if level > 0 else f"[red]{bar}")
    Console().print(table)
