"""`visa-proxy train detector|translator|facts|space`: fit, measure on held-out data, write weights and MODEL_CARD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from visa_proxy.yaml_problems import visible

PACKAGE: Final = Path(__file__).parent.parent
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)
BUNDLED: Final = "bundled"
SEED: Final = click.IntRange(0, 2**32 - 1)

Command = TypeVar("Command", bound=Callable[..., Any])


def options(name: str, data: str) -> Callable[[Command], Command]:
    """`--data`, `--recipe`, `--out` and `--seed` of the component `name`; `data` says what the folder of data holds."""

    def decorate(command: Command) -> Command:
        for option in (
            click.option("--seed", type=SEED, default=0, show_default=True),
            click.option("--out", type=FOLDER, default=PACKAGE / "assets" / name, help="Default: the bundled weights."),
            click.option("--recipe", default=BUNDLED, show_default=True, help="The word bundled, or a YAML file."),
            click.option("--data", type=FOLDER, required=True, help=data),
        ):
            command = option(command)
        return command

    return decorate


def recipe_file(name: str, recipe: str) -> Path:
    """The file that `--recipe` means for the component `name`."""
    return PACKAGE / "training" / "recipes" / f"{name}.yaml" if recipe == BUNDLED else Path(recipe)


@click.command()
@options(
    "detector",
    "Folder with dolly/, fulcra/, touche23-valueeval/, and anthropic-persona-evals/ where there is one.",
)
def detector(data: Path, recipe: str, out: Path, seed: int) -> None:
    """Train the detector: answer to value vector. A run that was killed goes on after its last epoch."""
    from visa_proxy.training import detector as training
    from visa_proxy.training import detector_report as report

    _train("detector", training.train, training.DetectorRecipe, report.card, data, recipe, out, seed)


@click.command()
@options("translator", "Folder with dolly/, and anthropic-persona-evals/ where there is one.")
def translator(data: Path, recipe: str, out: Path, seed: int) -> None:
    """Train the translator: instruction to offset. A run that was killed goes on after its last epoch."""
    from visa_proxy.training import translator as training
    from visa_proxy.training import translator_report as report

    _train("translator", training.train, training.TranslatorRecipe, report.card, data, recipe, out, seed)


@click.command()
@options("facts", "Folder with dolly/, e-snli/, mnli-llmsknow/ and conjnli/.")
def facts(data: Path, recipe: str, out: Path, seed: int) -> None:
    """Train the fact analyzer: does one text say what another says. A run that was killed goes on after its last epoch."""
    from visa_proxy.training import facts as training
    from visa_proxy.training import facts_report as report

    _train("facts", training.train, training.FactsRecipe, report.card, data, recipe, out, seed)


@click.command()
@click.option("--space", required=True, help="Name of a bundled space (tone, inglehart-welzel), or a space.yaml of your own.")
@click.option("--data", type=FILE, help="JSON Lines of labelled answers; default: the bundled answers of a bundled space.")
@click.option("--detector", "base", type=FOLDER, default=PACKAGE / "assets" / "detector", help="The detector to add it to.")
@click.option(
    "--out", type=FOLDER, help="Folder for space.yaml and head.safetensors; default for a bundled space: the detector's own."
)
@click.option("--seed", type=SEED, default=0, show_default=True)
def space(space: str, data: Path | None, base: Path, out: Path | None, seed: int) -> None:
    """Train a head for another value space on the detector's encoder; what the detector says of other spaces stays the same, to the bit.

    A labelled answer is {"answer": "…", "values": {"warmth": 0.5}}, with "query", "topic" where there are any; levels -1 … 1.
    """
    from visa_proxy.training.space import train_space

    lines, written = train_space(space, data, base, out, seed)
    click.echo("\n".join(lines))
    click.echo(f"wrote {visible(str(written))}")


def _train(
    name: str,
    fit: Callable[[Path, Any, Path, int], Any],
    schema: type[Any],
    card: Callable[[Path, Path], list[str]],
    data: Path,
    recipe: str,
    out: Path,
    seed: int,
) -> None:
    from visa_proxy.training.cards import write_card
    from visa_proxy.training.heads import load_recipe

    file = recipe_file(name, recipe)
    fit(data, load_recipe(file, schema), out, seed)
    lines = card(data, out)
    command = ["visa-proxy", "train", name, "--data", "DATA", "--recipe", recipe, "--seed", str(seed)]
    written = write_card(out, f"{name}_card", command, lines, file.read_text(encoding="utf-8"))
    click.echo("\n".join(filter(None, lines)))
    click.echo(f"wrote {visible(str(out))}: {written.name} and weights")
