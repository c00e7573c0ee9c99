"""Simple detectors that a trained one is to be measured beside."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.training.heads import Array
from visa_proxy.training.labelled import Labelled
from visa_proxy.values import Space

RIDGE: Final = 1.0
"""Penalty."""
_CATEGORY: Final = re.compile(r"[^a-z]+")


class Baseline(Protocol):
    """Texts to value vectors."""

    name: str

    def __call__(self, rows: Sequence[Labelled]) -> Array:
        """(rows, dimensions)"""
        ...


class MeanVector:
    """The mean of the training labels, whatever the text."""

    name = "mean of the training labels"

    def __init__(self, train: Sequence[Labelled]) -> None:
        self._mean: Array = np.mean([row.target for row in train], axis=0).astype(np.float32)

    def __call__(self, rows: Sequence[Labelled]) -> Array:
        return np.tile(self._mean, (len(rows), 1))


class Lexicon:
    """How many words of each value's list a text holds, divided by its sentences: presence without a sign.

    The list is pyvalues' English dictionary (MIT), `pyvalues-dictionary/en.json` of the data folder.
    """

    name = "lexicon (pyvalues)"

    def __init__(self, data: Path, space: Space) -> None:
        """Raises ConfigError when the file is missing or no dictionary."""
        file = data / "pyvalues-dictionary" / "en.json"
        try:
            lists: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError([f"{file}: {error}; it is part of ValueEval/pyvalues"]) from error
        self._words = [self._pattern(lists, name) for name in space.names]

    def __call__(self, rows: Sequence[Labelled]) -> Array:
        return np.array(
            [
                [min(1.0, len(words.findall(row.text)) / max(1, len(split_sentences(row.text)))) for words in self._words]
                for row in rows
            ],
            np.float32,
        )

    @staticmethod
    def _pattern(lists: dict[str, Any], name: str) -> re.Pattern[str]:
        wanted = _CATEGORY.sub("", name)
        words = [w for key, entry in lists.items() if _CATEGORY.sub("", key.lower()).startswith(wanted) for w in entry]
        return re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + r")\b", re.IGNORECASE)


class Ridge:
    """Ridge regression on the frozen encoder: mean over the sentences' embeddings beside the query's."""

    name = "frozen MiniLM + ridge regression"

    def __init__(self, encoder: SentenceEncoder, train: Sequence[Labelled], penalty: float = RIDGE) -> None:
        self._encoder = encoder
        features = self._features(train)
        targets = np.stack([row.target for row in train])
        square = features.T @ features + penalty * np.eye(features.shape[1], dtype=np.float32)
        self._weights: Array = np.linalg.solve(square, features.T @ targets).astype(np.float32)

    def __call__(self, rows: Sequence[Labelled]) -> Array:
        found: Array = np.clip(self._features(rows) @ self._weights, -1, 1)
        return found

    def _features(self, rows: Sequence[Labelled]) -> Array:
        found = []
        for row in rows:
            encoded = self._encoder.encode_now([row.query or "-", *split_sentences(row.text)])
            found.append(np.concatenate([np.mean([e.pooled for e in encoded[1:]], axis=0), encoded[0].pooled, [1.0]]))
        return np.array(found, np.float32)
