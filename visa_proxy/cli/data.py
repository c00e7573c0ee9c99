"""`visa-proxy data`: the training sets of detector, translator and fact analyzer, as the trainers build them, in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from visa_proxy.cli.data_build import build
from visa_proxy.cli.data_file import write_rows
from visa_proxy.cli.data_mini import mini
from visa_proxy.cli.train_instruments import BUNDLED, FOLDER, SEED, recipe_file
from visa_proxy.yaml_problems import visible


@click.group()
def data() -> None:
    """Write a component's training set as JSON Lines: what `visa-proxy train` would learn from, and nothing held out."""


def _command(name: str, about: str, rows: Any) -> click.Command:
    @click.command(name, help=about)
    @click.option("--data", "source", type=FOLDER, required=True, help="Folder with the public data sets.")
    @click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
    @click.option("--recipe", default=BUNDLED, show_default=True, help="The word bundled, or a YAML file.")
    @click.option("--seed", type=SEED, default=0, show_default=True)
    def command(source: Path, out: Path, recipe: str, seed: int) -> None:
        count = write_rows(rows(source, recipe_file(name, recipe), seed), out)
        click.echo(f"wrote {visible(str(out))}: {count} rows")

    return command


def _detector(source: Path, recipe: Path, seed: int) -> Iterator[dict[str, Any]]:
    from visa_proxy.training.detector import DetectorRecipe, training_examples
    from visa_proxy.training.heads import load_recipe
    from visa_proxy.values import load_space

    names = load_space("schwartz").names
    for example in training_examples(source, load_recipe(recipe, DetectorRecipe), seed):
        values = {n: round(float(v), 4) for n, v, known in zip(names, example.target, example.mask, strict=True) if known and v}
        unknown = [n for n, known in zip(names, example.mask, strict=True) if not known]
        row = {"query": example.query, "sentences": list(example.parts), "values": values, "weight": example.weight}
        yield row | ({"unknown": unknown} if unknown else {})


def _translator(source: Path, recipe: Path, seed: int) -> Iterator[dict[str, Any]]:
    from visa_proxy.training.heads import load_recipe
    from visa_proxy.training.translator import TranslatorRecipe, training_examples
    from visa_proxy.translator.encoder import OUTPUTS

    for example in training_examples(source, load_recipe(recipe, TranslatorRecipe), seed):
        offset = {n: round(float(v), 4) for n, v in zip(OUTPUTS[:-2], example.target, strict=False) if v}
        yield {"instruction": example.parts[0], "offset": offset, "english": not example.target[-1]}


def _facts(source: Path, recipe: Path, seed: int) -> Iterator[dict[str, Any]]:
    from visa_proxy.training.facts import FactsRecipe, examples
    from visa_proxy.training.heads import load_recipe

    for claim in examples(source, load_recipe(recipe, FactsRecipe), seed).train:
        sentences = [
            {"sentence": alternatives[0][1], "premises": [list(p) for p, _ in alternatives]} for alternatives in claim.sentences
        ]
        yield {"sentences": sentences, "covered": bool(claim.label), "kind": claim.kind, "weight": claim.weight}


data.add_command(_command("detector", "Answers and the values they express.", _detector))
data.add_command(_command("translator", "Instructions and the offsets they mean.", _translator))
data.add_command(_command("facts", "Sentences and whether others cover them.", _facts))
data.add_command(build)
data.add_command(mini)
