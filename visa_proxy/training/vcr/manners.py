"""Adverbs that express a value by how something is done: `data/manners.yaml`, and where in a sentence they go."""

from __future__ import annotations

import functools
import importlib.resources
import re
from typing import Final

import yaml

from visa_proxy.training.compose import IMPERATIVES
from visa_proxy.training.phrases import PHRASE_LEVELS

_WORD: Final = re.compile(r"([A-Z][a-z]+) (?=[a-z0-9⟦])")
_AGENT: Final = re.compile(
    r"\b(?:[Yy]ou|[Ww]e|[Oo]ne|[Pp]eople|[Tt]hey) (?:can|could|should|may|must|will)"
    r"(?= (?!not|never|also|be|have|need|only|always|then|still|even|either|all|both|see|feel|find)[a-z]+ )"
)
"""Somebody who does something: what merely happens is done in no manner."""


@functools.cache
def manners() -> dict[tuple[str, float], tuple[str, ...]]:
    """(value, level) to its adverbs, for every value of the Schwartz space and the levels -1, -0.5, 0.5 and 1."""
    file = importlib.resources.files("visa_proxy.training") / "data" / "manners.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {(value, level): tuple(levels[name]) for value, levels in data.items() for name, level in PHRASE_LEVELS.items()}


def woven(sentence: str, manner: str) -> str | None:
    """`sentence` done in that `manner`: before an imperative, or behind the modal of somebody who acts; None where there is neither."""
    commas = "," if " " in manner else ""
    first = _WORD.match(sentence)
    if first and first[1].lower() in IMPERATIVES:
        return f"{manner[0].upper()}{manner[1:]}{commas} {sentence[0].lower()}{sentence[1:]}"
    if agent := _AGENT.search(sentence):
        return f"{sentence[: agent.end()]}{commas} {manner}{commas}{sentence[agent.end() :]}"
    return None
