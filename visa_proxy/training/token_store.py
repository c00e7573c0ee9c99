"""Frozen token states of many sentences, computed once and kept in half precision."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from visa_proxy.encoder.minilm import WIDTH, SentenceEncoder
from visa_proxy.facts.lexical import features

Half = NDArray[np.float16]
_CHUNK: Final = 256


class TokenStore:
    """Sentence -> token states (tokens, 384), float16: about 15 KB a sentence."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._states: dict[str, Half] = {}
        self._lexical: dict[tuple[tuple[str, ...], str], NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def add(self, sentences: Iterable[str]) -> None:
        """Encode those of `sentences` that are new, shortest first, with a progress bar."""
        missing = sorted({s for s in sentences if s not in self._states}, key=lambda s: (len(s), s))
        if not missing:
            return
        with Progress() as progress:
            task = progress.add_task("encoding sentences", total=len(missing))
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                for sentence, encoded in zip(chunk, self._encoder.encode_now(chunk), strict=True):
                    self._states[sentence] = encoded.tokens.astype(np.float16)
                progress.advance(task, len(chunk))

    def window(self, sentences: Sequence[str]) -> Half:
        """The token states of neighbouring sentences, one after the other."""
        return self._states[sentences[0]] if len(sentences) == 1 else np.concatenate([self._states[s] for s in sentences])

    def lexical(self, premise: tuple[str, ...], hypothesis: str) -> NDArray[np.float32]:
        """`lexical.features`, computed once a pair."""
        key = premise, hypothesis
        if key not in self._lexical:
            self._lexical[key] = features(" ".join(premise), hypothesis)
        return self._lexical[key]

    def save(self, folder: Path) -> None:
        """Write `states.npy` and `sentences.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        sentences = sorted(self._states)
        np.save(
            folder / "states.npy",
            np.concatenate([self._states[s] for s in sentences]) if sentences else np.zeros((0, WIDTH)),
        )
        rows = [[s, len(self._states[s])] for s in sentences]
        (folder / "sentences.json").write_text(json.dumps(rows), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take what `save` wrote; nothing when the folder holds none."""
        if not (folder / "sentences.json").is_file():
            return
        states = np.load(folder / "states.npy")
        start = 0
        for sentence, length in json.loads((folder / "sentences.json").read_text(encoding="utf-8")):
            self._states[sentence] = states[start : start + length]
            start += length
