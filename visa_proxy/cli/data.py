"""`visa-proxy data`: the training sets of detector, translator and fact analyzer, as the trainers build them, in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from visa_proxy.cli.data_build import build
from visa_proxy.cli.train_instruments import BUNDLED, FOLDER, SEED, recipe_file
from visa_proxy.errors import ConfigError
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
        count = _write(rows(source, recipe_file(name, recipe), seed), out)
        click.echo(f"wrote {visible(str(out))}: {count} rows")

    return command


def _write(rows: Iterable[dict[str, Any]], out: Path) -> int:
    """The number of rows; the file appears when it is whole, and where that fails nothing stays. Raises ConfigError."""
    if os.path.exists(out) and not os.path.isfile(out):  # noqa: PTH110, PTH113 - Path's raise OSError for a name that is too long
        raise ConfigError([f"--out: {out} is no regular file; allowed: a new file, or one to write anew"])
    part = out.with_name(out.name + ".part")
    count = 0
    try:
        file = part.open("w", encoding="utf-8")
        try:
            with file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
            part.replace(out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        found = f"{error.filename or out}: {error.strerror or error}"
        raise ConfigError([f"{found}; allowed: data that can be read, and an --out that can be written"]) from error
    return count


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
