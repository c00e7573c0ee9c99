"""`visa-proxy train facts`: train the fact analyzer's entailment head, measure it on held-out data, write weights and
MODEL_CARD."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

PACKAGE: Final = Path(__file__).parent.parent
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--data", type=_FOLDER, required=True, help="Folder with dolly/, e-snli/, mnli-llmsknow/ and conjnli/.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, dir_okay=False),
    default=PACKAGE / "training" / "recipes" / "facts.yaml",
    help="YAML; default: the bundled recipe.",
)
@click.option("--out", type=_FOLDER, default=PACKAGE / "assets" / "facts", help="Default: the bundled weights.")
@click.option("--cache", type=_FOLDER, help="Keep encodings here for the next run with the same data.")
@click.option("--start", type=click.Path(path_type=Path, exists=True), help="Weights to go on from; default: random ones.")
@click.option("--seed", default=0, show_default=True)
def facts(data: Path, recipe: Path, out: Path, cache: Path | None, start: Path | None, seed: int) -> None:
    """Train the fact analyzer: does one sentence cover another."""
    from visa_proxy.errors import VisaError
    from visa_proxy.training.cards import write_card
    from visa_proxy.training.facts import new_encoder, read_recipe, train
    from visa_proxy.training.facts_report import evaluate

    try:
        encoder = new_encoder()
        train(encoder, data, read_recipe(recipe), out, seed, cache, start)
        lines = evaluate(encoder, out, data)
    except VisaError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    command = ["visa-proxy", "train", "facts", "--data", str(data), "--recipe", recipe.name, "--seed", str(seed)]
    command += ["--start", start.name] if start else []
    card = write_card(out, "facts_card", command, lines, recipe.read_text(encoding="utf-8"))
    click.echo("\n".join(lines))
    click.echo(f"wrote {out}: model.safetensors, {card.name}")
