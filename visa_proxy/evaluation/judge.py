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
from visa_proxy.detector.base import Detector
from visa_proxy.detector.load import load_detector
from visa_proxy.errors import ConfigError
from visa_proxy.evaluation.cases import Case, space
from visa_proxy.evaluation.fluency import Fluency
from visa_proxy.evaluation.form import fault
from visa_proxy.evaluation.spans import kept_and_all
from visa_proxy.facts import load as facts_load
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.facts.load import load_facts
from visa_proxy.llm.instrument import Settings
from visa_proxy.shield.verify import measured
from visa_proxy.training.baselines import Lexicon
from visa_proxy.training.labelled import Labelled

DIGITS: Final = 6
VERSION: Final = 1
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
        detector = load_detector(Settings(path="" if self.detector == weights.BUNDLED else str(self.detector)))
        facts = load_facts(Settings(kind="nli", path="" if self.facts == facts_load.BUNDLED else str(self.facts)))
        return Judge(detector, facts, lexicon, None if self.fluency is None else Fluency(self.fluency))


def digest_of(path: Path) -> str:
    """Of a file, or of all files of a folder but those that are read by people. Raises ConfigError."""
    if not path.exists():
        raise ConfigError([f"{path}: there is no such file or folder"])
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    summed = hashlib.sha256()
    for file in files:
        if file.suffix in (".md", ".pyc") or file.name.startswith("."):
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

    def __init__(
        self, detector: Detector, facts: FactAnalyzer, lexicon: Lexicon | None = None, fluency: Fluency | None = None
    ) -> None:
        self._detector = detector
        self._facts = facts
        self._lexicon = lexicon
        self._fluency = fluency
        self._known: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._one = asyncio.Lock()
        """The language model computes for one at a time."""

    async def judge(self, case: Case, text: str) -> dict[str, Any]:
        """What stands in a row beside the text: values before and after, consistency, spans, length. Raises InstrumentError."""
        report = await self._facts.compare(case.answer, text)
        kept, spans = kept_and_all(case.answer, text, case.glossary)
        return {
            "before": await self._original(case),
            "after": await self._of(case.query, text),
            "consistency": round(report.consistency, DIGITS),
            "forward": round(report.forward, DIGITS),
            "backward": round(report.backward, DIGITS),
            "lost": len(report.lost),
            "gained": len(report.gained),
            "kept": kept,
            "spans": spans,
            "length": round(len(text) / len(case.answer), DIGITS),
            "changed": text.split() != case.answer.split(),
            "fault": fault(case, text),
        }

    async def _original(self, case: Case) -> dict[str, Any]:
        """Measured once, whichever systems are compared."""
        if case.digest not in self._known:
            self._known[case.digest] = asyncio.ensure_future(self._of(case.query, case.answer))
        return await asyncio.shield(self._known[case.digest])

    async def _of(self, query: str, text: str) -> dict[str, Any]:
        reading = await self._detector.detect(query, text)
        found: dict[str, Any] = {"values": [round(float(v), DIGITS) for v in measured(reading, space()).array]}
        if self._lexicon is not None:
            found["words"] = [round(float(each), DIGITS) for each in self._lexicon([_bare(text)])[0]]
        if self._fluency is not None:
            found["nll"], found["tokens"] = await self._surprise(self._fluency.surprise, text)
        return found

    async def _surprise(self, surprise: Callable[[str], tuple[float, int]], text: str) -> tuple[float, int]:
        async with self._one:
            nats, tokens = await asyncio.to_thread(surprise, text)
        return round(nats, DIGITS), tokens


def _bare(text: str) -> Labelled:
    """A text as the baselines take it."""
    nothing = np.zeros(len(space()), np.float32)
    return Labelled("", text, nothing, nothing, "test")
