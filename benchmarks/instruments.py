"""What measuring costs: verification of a rewrite, one reading, thirty-two at once, and beside an LLM as judge.

    python benchmarks/instruments.py [--answers 40]

Answers of about 150 tokens, each with a rewrite that changed a third of its sentences. In the same run, taking turns:

    plain     transformers' float32 model over both whole texts for the detector, and over both again for each direction of entailment;
              then heads, alignment and checks as shipped
    shipped   what serving does: the answer was measured before the rewrite came, so only changed sentences are encoded and asked about

Both use the same weights and heads, so that their verdicts can be compared. Prints the table; fails when a figure misses its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from proxy import machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visa_proxy.demo.base import load_entries
from visa_proxy.detector.encoder import EncoderDetector
from visa_proxy.detector.judge import system_prompt
from visa_proxy.detector.weights import BUNDLED, load_encoder_detector
from visa_proxy.encoder.bert import LAYERS, read_layers
from visa_proxy.encoder.minilm import SentenceEncoder, load_model
from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.facts.load import BUNDLED as FACTS
from visa_proxy.facts.nli import EntailmentAnalyzer
from visa_proxy.llm.structured import delimited
from visa_proxy.training.compose import dress
from visa_proxy.training.phrases import phrases
from visa_proxy.values import ValueVector, load_space

WANTED: Final = 150
"""Tokens of an answer."""
BOUND: Final = 0.25
SAME: Final = 0.99
THRESHOLD: Final = 0.6
console = Console()


@dataclass(frozen=True)
class Case:
    """An answer and a rewrite of it."""

    query: str
    original: str
    rewritten: str
    target: ValueVector


@dataclass(frozen=True)
class Verdict:
    """What verification comes to."""

    gain: float
    forward: float
    backward: float
    passed: bool


class Plain(SentenceEncoder):
    """Float32 by the library's own model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(exact=True)
        library = copy.deepcopy(load_model(None)[1])
        if (folder / LAYERS).is_file():
            library.load_state_dict(read_layers(folder / LAYERS, library.state_dict()), strict=False)
        library.eval()
        self._model: Any = lambda ids, mask: library(input_ids=ids, attention_mask=mask).last_hidden_state

    def forget(self) -> None:
        """The next text is encoded whole, whatever was encoded before."""
        self._cache.clear()


def cases(count: int) -> list[Case]:
    """Sample answers joined to about 150 tokens, a third of their sentences with a value phrase in them."""
    tokenizer, _ = load_model(None)
    order = np.random.default_rng(0)
    entries, pool = load_entries(), list(phrases("heldout"))
    found: list[Case] = []
    while len(found) < count:
        picked = [entries[i] for i in order.permutation(len(entries))[:6]]
        sentences: list[str] = []
        for entry in picked:
            sentences += split_sentences(entry.answer)
            if len(tokenizer.tokenize(" ".join(sentences))) >= WANTED:
                break
        wanted = max(1, round(len(sentences) / 3))
        inner = [p for p in pool if p.form in ("lead", "tail")]
        texts, labels = dress(sentences, [inner[i] for i in order.permutation(len(inner))[:wanted]], order)
        changed = sum(a != b for a, b in zip(texts, sentences, strict=True)) if len(texts) == len(sentences) else 0
        if changed == wanted and labels.any():
            target = ValueVector(load_space("schwartz"), labels.sum(0))
            found.append(Case(picked[0].question, " ".join(sentences), " ".join(texts), target))
    return found


async def verdict(detector: EncoderDetector, facts: EntailmentAnalyzer, case: Case, before: ValueVector) -> Verdict:
    after = (await detector.detect(case.query, case.rewritten)).values
    report = await facts.compare(case.original, case.rewritten)
    gain = after.cosine(case.target) - before.cosine(case.target)
    return Verdict(gain, report.forward, report.backward, gain > 0 and report.consistency >= THRESHOLD)


def verify(chosen: Sequence[Case]) -> tuple[list[float], list[float], float, float]:
    """CPU seconds of plain and shipped verification, share of equal verdicts, largest relative difference of the mean figures."""
    shipped, analyzer = load_encoder_detector(), EntailmentAnalyzer(FACTS)
    plain, strict = load_encoder_detector(), EntailmentAnalyzer(FACTS)
    values, entailment = Plain(BUNDLED), Plain(FACTS)
    plain._encoder, strict.encoder = values, entailment
    spent: dict[str, list[float]] = {"plain": [], "shipped": []}
    found: dict[str, list[Verdict]] = {"plain": [], "shipped": []}

    async def run() -> None:
        for case in track(chosen, description="verifying", console=console):
            before = (await shipped.detect(case.query, case.original)).values
            started = time.process_time()
            found["shipped"].append(await verdict(shipped, analyzer, case, before))
            spent["shipped"].append(time.process_time() - started)
            started = time.process_time()
            values.forget()
            before = (await plain.detect(case.query, case.original)).values
            values.forget()
            for _ in range(2):  # one pass over both texts for each direction
                entailment.forget()
                await entailment.encode([*split_sentences(case.original), *split_sentences(case.rewritten)])
            found["plain"].append(await verdict(plain, strict, case, before))
            spent["plain"].append(time.process_time() - started)

    asyncio.run(run())
    same = float(np.mean([a.passed == b.passed for a, b in zip(found["plain"], found["shipped"], strict=True)]))
    off = max(
        abs(np.mean([getattr(v, name) for v in found["shipped"]]) / np.mean([getattr(v, name) for v in found["plain"]]) - 1)
        for name in ("gain", "forward", "backward")
    )
    return spent["plain"], spent["shipped"], same, float(off)


def readings(chosen: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Milliseconds an answer, wall and CPU, of readings one at a time and 32 at once, nothing known before."""

    async def run(at_once: int) -> tuple[float, float]:
        detector = load_encoder_detector()
        texts = [f"{case.original} Note {i}." for i, case in enumerate(chosen)]
        await detector.detect("", "Warm up.")
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(texts), at_once):
            await asyncio.gather(
                *(detector.detect(c.query, t) for c, t in list(zip(chosen, texts, strict=True))[start : start + at_once])
            )
        return (time.perf_counter() - wall) * 1000 / len(texts), (time.process_time() - cpu) * 1000 / len(texts)

    return {f"{at_once} at once": asyncio.run(run(at_once)) for at_once in (1, 32)}


def judge_tokens(case: Case) -> tuple[int, int]:
    """Tokens that a judge reads and writes for one answer, counted with the encoder's vocabulary."""
    tokenizer, _ = load_model(None)
    prompt = system_prompt(load_space("schwartz")) + delimited({"question": case.query, "answer": case.original})
    read = len(tokenizer.tokenize(prompt))
    return read, len(tokenizer.tokenize(str(dict.fromkeys(load_space("schwartz").names, 0.5))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=40)
    chosen = cases(parser.parse_args().answers)
    plain, shipped, same, off = verify(chosen)
    ratio = sum(shipped) / sum(plain)
    console.print(f"{len(chosen)} answers of about {WANTED} tokens, a third of the sentences changed, {machine()}")
    table = Table("verification of one rewrite", "CPU ms, median", "ratio")
    table.add_row("plain float32 over both whole texts", f"{statistics.median(plain) * 1000:.0f}", "1.00")
    table.add_row("shipped", f"{statistics.median(shipped) * 1000:.0f}", f"{ratio:.2f}")
    console.print(table)
    console.print(f"same verdict: {same:.1%}; largest difference of a mean figure: {off:.2%}")
    reading = Table("one reading, nothing known before", "wall ms", "CPU ms")
    for name, (wall, cpu) in readings(chosen).items():
        reading.add_row(name, f"{wall:.1f}", f"{cpu:.1f}")
    console.print(reading)
    read, written = judge_tokens(chosen[0])
    console.print(f"An LLM judge reads about {read} tokens and writes about {written} for each of these answers.")
    if ratio > BOUND or same < SAME:
        sys.exit(f"ratio {ratio:.2f} (at most {BOUND}), same verdict {same:.1%} (at least {SAME:.0%})")


if __name__ == "__main__":
    main()
