"""The judge: what is measured of a case, and of a text made from it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from visa_proxy.detector import weights
from visa_proxy.errors import ConfigError
from visa_proxy.evaluation.cases import Case, space
from visa_proxy.evaluation.fluency import Fluency
from visa_proxy.facts import load as facts_load
from visa_proxy.shield.preserve import protect
from visa_proxy.training.baselines import Lexicon
from visa_proxy.training.labelled import Labelled
from visa_proxy.training.rewards import grader as grading
from visa_proxy.training.rewards.form import UNCHANGED
from visa_proxy.training.rewards.scorer import Instruments
from visa_proxy.training.rewards.spans import kept
from visa_proxy.values import ValueVector

DIGITS: Final = 6
VERSION: Final = 2
"""Of what is measured: another one measures everything anew."""


@dataclass(frozen=True)
class JudgeFiles:
    """Which judge; loads nothing."""

    detector: Path = weights.BUNDLED
    facts: Path = facts_load.BUNDLED
    lexicon: Path | None = None
    """A data folder that holds pyvalues-dictionary/en.json: an independent measure, presence without a sign, and no model."""
    fluency: Path | None = None

    def digest(self) -> str:
        """Of the contents of every file. Raises ConfigError for one that is missing or cannot be read."""
        parts = [str(VERSION), *(digest_of(path) for path in (self.detector, self.facts, self._words, self.fluency) if path)]
        present = f"{self.lexicon is not None} {self.fluency is not None}"
        return hashlib.sha256("\n".join([present, *parts]).encode()).hexdigest()[:16]

    @property
    def _words(self) -> Path | None:
        return None if self.lexicon is None else self.lexicon / "pyvalues-dictionary"

    def bundled(self) -> list[str]:
        """Which of detector and facts have the very contents of the weights that come with the package."""
        given = {"detector": (self.detector, weights.BUNDLED), "facts": (self.facts, facts_load.BUNDLED)}
        return [name for name, (ours, theirs) in given.items() if digest_of(ours) == digest_of(theirs)]

    def load(self) -> Judge:
        """Takes seconds. Raises ConfigError for weights that cannot be used, MissingExtra without torch."""
        lexicon = None if self.lexicon is None else Lexicon(self.lexicon, space())
        detector = None if self.detector == weights.BUNDLED else self.detector
        facts = None if self.facts == facts_load.BUNDLED else self.facts
        opened = Instruments.of(detector, facts).open()
        return Judge(opened, lexicon, None if self.fluency is None else Fluency(self.fluency))


def digest_of(path: Path) -> str:
    """Of a file, or of all files of a folder but those that are read by people, and what training left in its run/. Raises ConfigError."""
    if not path.exists():
        raise ConfigError([f"{path}: there is no such file or folder"])
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    summed = hashlib.sha256()
    for file in files:
        if file.suffix in (".md", ".pyc") or file.name.startswith(".") or file.is_relative_to(path / "run"):
            continue
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError([f"{file}: cannot read it: {error.strerror or error}"]) from error
        summed.update(f"{file.relative_to(path) if path.is_dir() else ''} {content}\n".encode())
    return summed.hexdigest()[:16]


class Judge:
    """Safe to call concurrently."""

    def __init__(self, grader: grading.Grader, lexicon: Lexicon | None = None, fluency: Fluency | None = None) -> None:
        """`grader`: as in training; what comes beside it is measured here alone."""
        self._grader = grader
        self._lexicon = lexicon
        self._fluency = fluency
        self._known: dict[str, dict[str, Any]] = {}
        """Of the answers, by digest of the case: measured once, whichever systems are compared."""
        self._one = asyncio.Lock()
        """The language model computes for one at a time."""

    async def judge(self, case: Case, text: str) -> dict[str, Any]:
        """What stands in a row beside the text: values before and after, consistency, spans, length. Raises InstrumentError."""
        asked = grading.Case(case.query, case.answer, protect(case.answer, glossary=case.glossary), case.target)
        (grade,) = await self._grader.grade_texts([asked], [text])
        if case.digest not in self._known:
            self._known[case.digest] = _values(await self._grader.before(asked)) | await self._beside(case.answer)
        lost, gained = grade.differing
        return {
            "before": self._known[case.digest],
            "after": _values(grade.after) | await self._beside(text),
            "consistency": round(grade.consistency, DIGITS),
            "forward": round(grade.forward, DIGITS),
            "backward": round(grade.backward, DIGITS),
            "lost": lost,
            "gained": gained,
            "kept": kept(asked.protected.spans, text),
            "spans": len(asked.protected.spans),
            "length": round(len(text) / len(case.answer), DIGITS),
            "changed": UNCHANGED not in grade.faults,
            "fault": " ".join(fault for fault in grade.faults if fault != UNCHANGED),
        }

    async def _beside(self, text: str) -> dict[str, Any]:
        """Words of the lexicon, and surprise, where they are asked for."""
        found: dict[str, Any] = {}
        if self._lexicon is not None:
            found["words"] = [round(float(each), DIGITS) for each in self._lexicon([_bare(text)])[0]]
        if self._fluency is not None:
            found["nll"], found["tokens"] = await self._surprise(self._fluency.surprise, text)
        return found

    async def _surprise(self, surprise: Callable[[str], tuple[float, int]], text: str) -> tuple[float, int]:
        async with self._one:
            nats, tokens = await asyncio.to_thread(surprise, text)
        return round(nats, DIGITS), tokens


def _values(vector: ValueVector) -> dict[str, Any]:
    return {"values": [round(float(v), DIGITS) for v in vector.array]}


def _bare(text: str) -> Labelled:
    """A text as the baselines take it."""
    nothing = np.zeros(len(space()), np.float32)
    return Labelled("", text, nothing, nothing, "test")
