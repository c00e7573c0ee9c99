"""`visa-proxy train detector|translator`: fit a head, measure it on held-out data, write weights and MODEL_CARD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

PACKAGE: Final = Path(__file__).parent.parent

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(name: str) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        folder = click.Path(path_type=Path, file_okay=False)
        file = click.Path(path_type=Path, dir_okay=False, exists=True)
        recipe = PACKAGE / "training" / "recipes" / f"{name}.yaml"
        for option in (
            click.option("--seed", default=0, show_default=True),
            click.option("--cache", type=folder, help="Keep encodings here for the next run with the same data."),
            click.option("--out", type=folder, default=PACKAGE / "assets" / name, help="Default: the bundled weights."),
            click.option("--recipe", type=file, default=recipe, help="YAML; default: the bundled recipe."),
            click.option("--data", type=folder, required=True, help="Folder with dolly/ (detector: fulcra/ too)."),
        ):
            command = option(command)
        return command

    return decorate


@click.command()
@_options("detector")
def detector(data: Path, recipe: Path, out: Path, cache: Path | None, seed: int) -> None:
    """Train the detector: answer to value vector."""
    from visa_proxy.training import detector as training
    from visa_proxy.training import detector_report as report

    _train("detector", training.train, training.DetectorRecipe, report.evaluate, (data, recipe, out, cache, seed))


@click.command()
@_options("translator")
def translator(data: Path, recipe: Path, out: Path, cache: Path | None, seed: int) -> None:
    """Train the translator: instruction to offset."""
    from visa_proxy.training import translator as training
    from visa_proxy.training import translator_report as report

    _train("translator", training.train, training.TranslatorRecipe, report.evaluate, (data, recipe, out, cache, seed))


def _train(
    name: str,
    fit: Callable[..., None],
    schema: type[Any],
    evaluate: Callable[..., list[str]],
    options: tuple[Path, Path, Path, Path | None, int],
) -> None:
    from visa_proxy.encoder.minilm import SentenceEncoder
    from visa_proxy.errors import VisaError
    from visa_proxy.training.cards import write_card
    from visa_proxy.training.heads import load_recipe

    data, recipe, out, cache, seed = options
    try:
        loaded = load_recipe(recipe, schema)
        encoder = SentenceEncoder(cache=1)
        fit(encoder, data, loaded, out, seed, cache)
        lines = evaluate(encoder, data, out, cache)
    except VisaError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    command = ["visa-proxy", "train", name, "--data", "DATA", "--recipe", recipe.name, "--seed", str(seed)]
    card = write_card(out, f"{name}_card", command, lines, recipe.read_text(encoding="utf-8"))
    click.echo("\n".join(filter(None, lines)))
    click.echo(f"wrote {out}: head.safetensors, {card.name}")
