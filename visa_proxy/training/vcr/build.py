"""From preference data to the data set of rewrites: what is still to be asked, asking it, and writing the result."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

from visa_proxy.errors import ConfigError, InstrumentError
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.optional import installed
from visa_proxy.training.labelled import Part
from visa_proxy.training.vcr.annotator import Annotator, Patience, Prompt, fate, status, unreachable
from visa_proxy.training.vcr.journal import Entry, Journal, read_journal
from visa_proxy.training.vcr.rows import EXPLANATION_COLUMN, Pair, read_preferences
from visa_proxy.training.vcr.samples import AnnotatedPair, Filtered, Sample, filtered, samples_of
from visa_proxy.training.vcr.statistics import page, plot, statistics
from visa_proxy.values import load_space

JOURNAL: Final = "annotations.jsonl"
STREAK: Final = 20
"""So many pairs without an annotation, one after the other, end a run: something is wrong with the annotator, not with the pairs."""
PROBES: Final = 2
"""So many pairs are asked about alone before many are: what is wrong with address or key shows early, and one pair is no proof."""
CHARACTERS: Final = 4
"""Of a token, on average, in English."""
HINTS: Final[Mapping[int | None, str]] = {
    401: "it refuses the key: is --api-key-env right?",
    402: "it wants to be paid first",
    403: "it refuses the key: is --api-key-env right?",
    404: "are --url (which mostly ends in /v1) and --model right?",
}


@dataclass(frozen=True)
class Settings:
    """What the command was told."""

    data: Path
    out: Path
    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout_s: float = 60.0
    limit: int | None = None
    """So many pairs, the first of the file."""
    lang: str = "en"
    explanation_column: str = EXPLANATION_COLUMN
    drop_ambiguous: float = 0.15
    min_shift: float = 0.5
    seed: int = 0
    retry_failed: bool = False
    """Ask again about pairs whose answer could not be read."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked, if every pair is answered at the first try. Tokens are characters / 4."""

    requests: int
    prompt_tokens: int
    completion_tokens: int

    def dollars(self, price_in: float, price_out: float) -> float:
        """Prices are those of a million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


@dataclass(frozen=True)
class Written:
    """What came out."""

    parts: Mapping[Part, int]
    """Samples of each."""
    failed: int
    """Pairs whose answer could not be read."""
    unanswered: int
    """Pairs that the annotator did not answer at all; another run asks again."""


class Build:
    """One data set. Construction reads everything and changes nothing."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for rows that are wrong, MissingExtra for what the end would lack."""
        installed("matplotlib", extra="eval")
        self.settings = settings
        found = read_preferences(settings.data, lang=settings.lang, explanation_column=settings.explanation_column)
        self.pairs = found.pairs[: settings.limit]
        self.skipped = found.skipped
        self.space = load_space("schwartz")
        self.prompt = Prompt(self.space, settings.model, settings.seed)
        self.journal = settings.out / JOURNAL
        self.entries, _ = read_journal(self.journal, self.space)

    @property
    def explained(self) -> int:
        """Pairs with an explanation."""
        return sum(bool(pair.explanation) for pair in self.pairs)

    def pending(self) -> list[Pair]:
        """Pairs that are still to be asked about."""
        return [pair for pair in self.pairs if self._asks(self.entries.get(self.prompt.key(pair)))]

    def _asks(self, entry: Entry | None) -> bool:
        return entry is None or (entry.annotation is None and self.settings.retry_failed)

    def any_annotated(self) -> bool:
        """Whether a pair is annotated already."""
        found = (self.entries.get(self.prompt.key(pair)) for pair in self.pairs)
        return any(entry is not None and entry.annotation is not None for entry in found)

    def estimate(self) -> Estimate:
        """Of `pending`."""
        pending = self.pending()
        characters = sum(len(self.prompt.system) + len(self.prompt.user(pair)) for pair in pending)
        answer = len(self.prompt.typical_answer()) // CHARACTERS
        return Estimate(len(pending), characters // CHARACTERS, len(pending) * answer)

    async def annotate(self, done: Callable[[], None]) -> None:
        """Asks about every pending pair, `concurrency` at a time, and calls `done` after each; what was answered is in the journal.

        Raises InstrumentError when the annotator cannot be asked: not reached, refusing key or address, or down for longer than the
        patience lasts. What was answered until then stays.
        """
        with Journal(self.journal, self.space) as journal:
            self.entries = journal.entries
            pending = self.pending()
            if not pending:
                return
            async with new_session() as session:
                settings = self.settings
                endpoint = HttpEndpoint(
                    session, settings.url, api_key=settings.api_key, timeout_s=settings.timeout_s, name="annotator"
                )
                round_ = _Round(self, Annotator(endpoint, self.prompt, settings.patience), journal, done)
                await round_.run(pending)

    def write(self) -> Written:
        """The three parts, statistics, plots and README, each of which appears when it is whole.

        The same annotations and settings make the same bytes. Raises ConfigError when no sample is left.
        """
        found = [(pair, self.entries.get(self.prompt.key(pair))) for pair in self.pairs]
        annotated = [AnnotatedPair(pair, entry.annotation) for pair, entry in found if entry and entry.annotation]
        failed = sum(entry is not None and entry.annotation is None for _, entry in found)
        left = filtered(annotated, self.settings.drop_ambiguous, self.settings.min_shift)
        counts = {
            "pairs": len(self.pairs),
            "pairs_with_explanation": self.explained,
            "failed": failed,
            "unanswered": len(self.pairs) - len(annotated) - failed,
            "samples_annotated": 2 * len(annotated),
            "samples_after_ambiguity": 2 * (len(annotated) - left.ambiguous),
            "samples_after_shift": 2 * len(left.kept),
        }
        if not left.kept:
            why = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
            raise ConfigError([f"{self.settings.data}: no sample is left ({why})"])
        try:
            parts = self._write(left, counts)
        except OSError as error:
            raise ConfigError([f"{self.settings.out}: cannot write to it: {error.strerror}"]) from error
        return Written(parts, failed, counts["unanswered"])

    def _write(self, left: Filtered, counts: Mapping[str, int]) -> Mapping[Part, int]:
        settings, out = self.settings, self.settings.out
        samples = [sample for each in left.kept for sample in samples_of(each)]
        split: dict[Part, list[Sample]] = {part: [] for part in get_args(Part)}
        for sample in samples:
            split[sample.part].append(sample)
        parts = {part: len(rows) for part, rows in split.items()}
        for part, rows in split.items():
            _put(out / f"{part}.jsonl", "".join(f"{json.dumps(row.to_dict(), ensure_ascii=False)}\n" for row in rows))
        plot(samples, out)
        figures = {"counts": dict(counts), "skipped": dict(self.skipped), "parts": parts, **statistics(samples)}
        _put(out / "statistics.json", json.dumps(figures, indent=2) + "\n")
        _put(out / "README.md", page(figures, settings.data.name, self.prompt, settings.drop_ambiguous, settings.min_shift))
        return parts


class _Round:
    """Asks about many pairs, and tells a bad pair from a bad annotator."""

    def __init__(self, build: Build, annotator: Annotator, journal: Journal, done: Callable[[], None]) -> None:
        self._build = build
        self._annotator = annotator
        self._journal = journal
        self._done = done
        self._answered = False
        """Whether there was an annotation in this run."""
        self._heard = build.any_annotated()
        """Whether the annotator has said anything at all, in this run or an earlier one."""
        self._probes = PROBES
        self._streak = 0
        """Pairs without an annotation since the last one."""

    async def run(self, pending: list[Pair]) -> None:
        """Until every pair was asked about. Raises InstrumentError, or ConfigError when the journal cannot be written."""
        self._probes = min(PROBES, len(pending))
        rest = iter(pending)
        for pair in itertools.islice(rest, PROBES):
            await self._ask(pair, first=True)
            if self._heard:
                break
        free = asyncio.Semaphore(self._build.settings.concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                for pair in rest:
                    await free.acquire()
                    group.create_task(self._ask(pair)).add_done_callback(lambda _: free.release())
        except ExceptionGroup as found:
            raise found.exceptions[0] from None

    async def _ask(self, pair: Pair, *, first: bool = False) -> None:
        try:
            entry = Entry(await self._annotator.annotate(pair, first=first))
        except InstrumentError as error:
            self._streak += 1
            if fate(error) == "unreadable":
                self._add(pair, Entry(None, error.message))
            if self._is_over(error, first):
                raise self._stop(error) from error
        else:
            self._answered = self._heard = True
            self._streak = 0
            self._add(pair, entry)
        self._done()

    def _is_over(self, error: InstrumentError, first: bool) -> bool:
        """Whether `error` is about the annotator, so that the other pairs would fare no better."""
        what = fate(error)
        if what == "refused":
            # Once others were answered, a 403 is about what this pair says.
            return not (status(error) == 403 and self._answered)
        if what == "transient":
            silent = not self._heard and self._streak >= self._probes
            return silent or self._streak >= STREAK or (first and unreachable(error))
        self._heard = True
        return self._streak >= STREAK

    def _add(self, pair: Pair, entry: Entry) -> None:
        prompt = self._build.prompt
        self._journal.add(prompt.key(pair), entry, id=pair.id, model=prompt.model, prompt=prompt.version)

    def _stop(self, error: InstrumentError) -> InstrumentError:
        """What the caller is told: the failure, what may be wrong, and that nothing is lost."""
        hint = HINTS.get(status(error), "is --url right?" if fate(error) == "transient" and not self._answered else "")
        if self._streak >= STREAK:
            hint = f"none of {STREAK} pairs one after the other could be annotated"
        done = len(self._build.pairs) - len(self._build.pending())
        kept = f"{done} of {len(self._build.pairs)} pairs are done and kept; the same command goes on from there"
        return InstrumentError("annotator", "; ".join(filter(None, (error.message, hint, kept))))


def _put(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
