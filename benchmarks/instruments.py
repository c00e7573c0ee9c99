"""What measuring costs: verification of a rewrite, number formats of the encoder, one reading, thirty-two at once, an LLM as judge.

    python benchmarks/instruments.py [--answers 200]

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
from visa_proxy.optional import need
from visa_proxy.training.compose import dress
from visa_proxy.training.phrases import phrases
from visa_proxy.values import ValueVector, load_space

WANTED: Final = 150
"""Tokens of an answer."""
BOUND: Final = 0.25
SAME: Final = 0.99
OFF: Final = 0.005
"""Of figures between 0 and 1."""
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
        self.library = library.eval()
        self._model: Any = lambda ids, mask: library(input_ids=ids, attention_mask=mask).last_hidden_state


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


@dataclass(frozen=True)
class Verified:
    """All cases, verified both ways."""

    plain_s: list[float]
    shipped_s: list[float]
    """CPU seconds of each."""
    same: float
    """Share of equal verdicts."""
    off: list[float]
    """Of each case the largest difference of a figure: gain of similarity, forward and backward entailment."""


def verify(chosen: Sequence[Case]) -> Verified:
    shipped, analyzer = load_encoder_detector(), EntailmentAnalyzer(FACTS)
    plain, strict = load_encoder_detector(), EntailmentAnalyzer(FACTS)
    values, entailment = Plain(BUNDLED), Plain(FACTS)
    plain._encoder, strict.encoder = values, entailment
    spent: dict[str, list[float]] = {"plain": [], "shipped": []}
    found: dict[str, list[Verdict]] = {"plain": [], "shipped": []}

    async def run() -> None:
        for case in track(chosen, description="verifying", console=console):
            forget(shipped._encoder, analyzer.encoder)
            before = (await shipped.detect(case.query, case.original)).values
            started = time.process_time()
            found["shipped"].append(await verdict(shipped, analyzer, case, before))
            spent["shipped"].append(time.process_time() - started)
            forget(values)
            started = time.process_time()
            before = (await plain.detect(case.query, case.original)).values
            forget(values)
            for _ in range(2):  # one pass over both texts for each direction
                forget(entailment)
                await entailment.encode([*split_sentences(case.original), *split_sentences(case.rewritten)])
            found["plain"].append(await verdict(plain, strict, case, before))
            spent["plain"].append(time.process_time() - started)

    asyncio.run(run())
    pairs = list(zip(found["plain"], found["shipped"], strict=True))
    same = float(np.mean([a.passed == b.passed for a, b in pairs]))
    off = [max(abs(getattr(a, name) - getattr(b, name)) for name in ("gain", "forward", "backward")) for a, b in pairs]
    return Verified(spent["plain"], spent["shipped"], same, off)


def forget(*encoders: SentenceEncoder) -> None:
    """The next texts are encoded whole, whatever was encoded before."""
    for encoder in encoders:
        encoder._cache.clear()


def numbered(text: str, number: int) -> str:
    """`text`, no sentence of which stands in another one."""
    return " ".join(f"{sentence[:-1]} {number}{sentence[-1]}" for sentence in split_sentences(text))


def readings(chosen: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Milliseconds an answer, wall and CPU, of readings one at a time and 32 at once, nothing known before."""

    async def run(at_once: int) -> tuple[float, float]:
        detector = load_encoder_detector()
        await detector.detect("", "Warm up.")
        asked = [(case.query, numbered(case.original, i)) for i, case in enumerate(chosen)]
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(asked), at_once):
            await asyncio.gather(*(detector.detect(query, text) for query, text in asked[start : start + at_once]))
        return (time.perf_counter() - wall) * 1000 / len(asked), (time.process_time() - cpu) * 1000 / len(asked)

    return {f"{at_once} at once": asyncio.run(run(at_once)) for at_once in (1, 32)}


def formats(chosen: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """CPU milliseconds an answer of ways to run the same encoder, taking turns, and the mean cosine of the embeddings to float32's."""
    torch = need("torch", extra="local")
    library, exact, fast = (
        Plain(BUNDLED),
        SentenceEncoder(layers=BUNDLED / LAYERS, exact=True),
        SentenceEncoder(layers=BUNDLED / LAYERS),
    )
    small = Plain(BUNDLED)
    quantized = torch.ao.quantization.quantize_dynamic(small.library, {torch.nn.Linear}, dtype=torch.qint8)
    small._model = lambda ids, mask: quantized(input_ids=ids, attention_mask=mask).last_hidden_state
    format_ = str(fast._model.type).removeprefix("torch.")
    ways = {
        "transformers, float32": library,
        "transformers, int8": small,
        "ours, float32": exact,
        f"ours, {format_} (shipped)": fast,
    }
    spent, likeness = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for case in track(chosen, description="encoding", console=console):
        sentences = split_sentences(case.original)
        forget(*ways.values())
        pooled = {}
        for name, encoder in ways.items():
            started = time.process_time()
            pooled[name] = np.stack([encoded.pooled for encoded in encoder.encode_now(sentences)])
            spent[name] += time.process_time() - started
            likeness[name] += float((pooled[name] * pooled["transformers, float32"]).sum(1).mean())
    return {name: (spent[name] * 1000 / len(chosen), likeness[name] / len(chosen)) for name in ways}


def judge_tokens(case: Case) -> tuple[int, int]:
    """Tokens that a judge reads and writes for one answer, counted with the encoder's vocabulary."""
    tokenizer, _ = load_model(None)
    prompt = system_prompt(load_space("schwartz")) + delimited({"question": case.query, "answer": case.original})
    read = len(tokenizer.tokenize(prompt))
    return read, len(tokenizer.tokenize(str(dict.fromkeys(load_space("schwartz").names, 0.5))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=200)
    chosen = cases(parser.parse_args().answers)
    found = verify(chosen)
    ratio, off = sum(found.shipped_s) / sum(found.plain_s), float(np.mean(found.off))
    console.print(f"{len(chosen)} answers of about {WANTED} tokens, a third of the sentences changed, {machine()}")
    table = Table("verification of one rewrite", "CPU ms, median", "ratio")
    table.add_row("plain float32 over both whole texts", f"{statistics.median(found.plain_s) * 1000:.0f}", "1.00")
    table.add_row("shipped", f"{statistics.median(found.shipped_s) * 1000:.0f}", f"{ratio:.2f}")
    console.print(table)
    console.print(
        f"same verdict: {found.same:.1%}; figures differ by {off:.4f}, one case in a hundred by {np.quantile(found.off, 0.99):.4f}"
    )
    encoding = Table("the encoder alone, one answer", "CPU ms", "cosine to float32")
    for name, (cpu, likeness) in formats(chosen[:40]).items():
        encoding.add_row(name, f"{cpu:.1f}", f"{likeness:.4f}")
    console.print(encoding)
    reading = Table("one reading, nothing known before", "wall ms", "CPU ms")
    for name, (wall, cpu) in readings(chosen[:64]).items():
        reading.add_row(name, f"{wall:.1f}", f"{cpu:.1f}")
    console.print(reading)
    read, written = judge_tokens(chosen[0])
    console.print(f"An LLM judge reads about {read} tokens and writes about {written} for each of these answers.")
    if ratio > BOUND or found.same < SAME or off > OFF:
        sys.exit(
            f"ratio {ratio:.2f} (at most {BOUND}), same verdict {found.same:.1%} (at least {SAME:.0%}), "
            f"figures differ by {off:.4f} (at most {OFF})"
        )


if __name__ == "__main__":
    main()
