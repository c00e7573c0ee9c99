"""Recipes: those of the package hold, and what is wrong with another one is said by file, line, column and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from visa_proxy.cli.train_instruments import recipe_file
from visa_proxy.errors import ConfigError
from visa_proxy.training.detector import DetectorRecipe
from visa_proxy.training.facts import FactsRecipe
from visa_proxy.training.heads import load_recipe
from visa_proxy.training.translator import TranslatorRecipe


@pytest.mark.parametrize(
    ("name", "schema"), [("detector", DetectorRecipe), ("translator", TranslatorRecipe), ("facts", FactsRecipe)]
)
def test_the_recipes_of_the_package_are_valid(name: str, schema: type[BaseModel]) -> None:
    load_recipe(recipe_file(name, "bundled"), schema)


def problems(file: Path, content: str | bytes, schema: type[BaseModel] = DetectorRecipe) -> list[str]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, schema)
    return [problem.removeprefix(f"{file}:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"fit: {}\n# \xff", "2:1: not UTF-8: byte 0xff"),
        ("[" * 100_000, "nested too deeply"),
        ('fit: "\\UFFFFFFFF"', "1:9: not valid YAML: found invalid Unicode character escape code"),
        ("fit: 2020-99-99", "1:6: fit: found '2020-99-99', allowed: a mapping of the keys layers, epochs"),
        (f"fit: {{epochs: {'9' * 5000}}}", "1:15: fit.epochs: found inf, allowed: a whole number ≥ 1 and ≤ 1000"),
        ("fit: {}\nrepeat: 1\nrepeat: 2", "3:1: repeat: this key is already set at line 2, column 1"),
        ("", "1:1: the file is empty"),
        ("- fit", "1:1: found a list, expected a mapping of keys"),
        ("repeat: 2", "fit: required key is missing"),
        ("fit: {}\nrepeats: 2", "2:1: repeats: unknown key; did you mean 'repeat'? allowed: fit, repeat, windows"),
        ("fit: {epoch: 2}", "1:7: fit.epoch: unknown key; did you mean 'epochs'? allowed: layers, epochs, batch"),
        ("fit: {epochs: 1001}", "1:15: fit.epochs: found 1001, allowed: a whole number ≥ 1 and ≤ 1000"),
        ("fit: {batch: 4097}", "fit.batch: found 4097, allowed: a whole number ≥ 1 and ≤ 4096"),
        ("fit: {learning_rate: .inf}", "fit.learning_rate: found inf, allowed: a number > 0 and ≤ 1"),
        ("fit: {learning_rate: .nan}", "fit.learning_rate: found nan, allowed: a number > 0 and ≤ 1"),
        ("fit: {head_learning_rate: 1.1}", "fit.head_learning_rate: found 1.1, allowed: a number > 0 and ≤ 1"),
        ("fit: {weight_decay: .inf}", "fit.weight_decay: found inf, allowed: a number ≥ 0 and ≤ 1"),
        ("fit: {}\nwindows: 1000001", "2:10: windows: found 1000001, allowed: a whole number ≥ 0 and ≤ 1e+06"),
        ("fit: {}\ntouche: many", "2:9: touche: found 'many', allowed: a whole number ≥ 0 and ≤ 1e+06"),
        ("fit: {}\nphrases_per_window: [a]", "phrases_per_window[0]: found 'a', allowed: a number"),
        *(
            (f"fit: {{}}\nphrases_per_window: {shares}", "2:21: phrases_per_window: found ")
            for shares in ("[]", "[0.5, 0.4]", "[1.5, -0.5]", "[.nan]", "[.inf]", [0.1] * 10, "[0.99999]")
        ),
    ],
)
def test_a_wrong_recipe_is_told_where_and_what_is_allowed(tmp_path: Path, content: str | bytes, said: str) -> None:
    (problem,) = problems(tmp_path / "recipe.yaml", content)
    assert said in problem and "\n" not in problem and len(problem) < 400


def test_counts_of_the_other_recipes_have_bounds_too(tmp_path: Path) -> None:
    assert "templates: found 1000001" in problems(tmp_path / "t.yaml", "fit: {}\ntemplates: 1000001", TranslatorRecipe)[0]
    assert "groups: found 1000001" in problems(tmp_path / "f.yaml", "fit: {}\ngroups: 1000001", FactsRecipe)[0]


@pytest.mark.parametrize("shares", [(0.333333, 0.333333, 0.333333), (1.0,), (0.2, 0.4, 0.3, 0.1)])
def test_probabilities_that_are_rounded_are_made_to_sum_to_one(tmp_path: Path, shares: tuple[float, ...]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"fit: {{}}\nphrases_per_window: {list(shares)}\n")
    found = load_recipe(file, DetectorRecipe).phrases_per_window
    assert found == pytest.approx(shares, abs=1e-6) and abs(sum(found) - 1) < 1e-12


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_recipe_that_cannot_be_read_is_told_of_the_bundled_one(tmp_path: Path, name: str) -> None:
    schema: type[Any] = DetectorRecipe
    with pytest.raises(ConfigError, match=r":1:1: cannot be read: .*; allowed: a YAML file, or the word bundled"):
        load_recipe(tmp_path / name, schema)
