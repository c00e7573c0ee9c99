"""Figures of the fact analyzer: whole rewrites of held-out answers with held-out phrases, through the product's own
`compare`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from visa_proxy.encoder.minilm import Encoded
from visa_proxy.facts.base import FactReport
from visa_proxy.facts.lexical import features
from visa_proxy.facts.nli import Candidate, EntailmentAnalyzer
from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.facts_data import Framer, Pair, Perturber, Split, read_snli, sentences_of
from visa_proxy.training.facts_written import rewrites
from visa_proxy.training.stats import auroc, interval, mean_interval

THRESHOLD: Final = 0.6
HONEST: Final = "honest"


@dataclass(frozen=True)
class Case:
    """An original and a rewrite of it."""

    kind: str
    """`honest`, or what was done to the facts."""
    document: int
    """Cases of one document, or of one topic, are not independent."""
    original: str
    rewritten: str


def cases(documents: Sequence[Sequence[str]], split: Split, seed: int, perturbed: bool = True, limit: int = 160) -> list[Case]:
    """An honest rewrite of up to `limit` documents of 3-6 sentences and, when `perturbed`, a spoilt one per kind of
    perturbation.

    All rewrites of a document share its framings: only the perturbation tells them apart.
    """
    rng = random.Random(seed)
    framer = Framer(split)
    perturber = Perturber([s for document in documents for s in document], split)
    found: list[Case] = []
    for number, document in enumerate([d for d in documents if 3 <= len(d) <= 6][:limit]):
        sentences = [framer.neutral(sentence, rng) for sentence in document]
        frame = _framing(sentences, framer, rng)
        original = " ".join(sentences)
        found.append(Case(HONEST, number, original, frame(sentences)))
        if perturbed:
            found += [Case(k, number, original, frame(t)) for k, t in _spoilt(sentences, perturber, rng).items()]
            k = rng.randrange(len(sentences))
            shorter = " ".join([*sentences[:k], *sentences[k + 1 :]])
            found.append(Case("topical sentence added", number, shorter, frame(sentences)))
    return found


def _framing(sentences: Sequence[str], framer: Framer, rng: random.Random) -> Callable[[Sequence[str]], str]:
    """What the bundled rewriter does: some sentences framed, one to three framing sentences around them.

    A sentence that is not one of `sentences`, a perturbed one, is framed half the time.
    """
    framed = {s: framer.frame(s, rng) if rng.random() < 0.45 else s for s in sentences}
    around = [framer.sentence(rng) for _ in range(rng.randint(1, 3))]
    other = framer.lead if rng.random() < 0.5 else framer.tail

    def rewrite(text: Sequence[str]) -> str:
        kept = [framed.get(s) or (other(s, rng) if rng.random() < 0.5 else s) for s in text]
        return " ".join([around[0], *kept, *around[1:]])

    return rewrite


def _spoilt(sentences: Sequence[str], perturber: Perturber, rng: random.Random) -> dict[str, list[str]]:
    """Per kind the document with one sentence perturbed, dropped or added."""
    spoilt: dict[str, list[str]] = {}
    for k in rng.sample(range(len(sentences)), len(sentences)):
        for change in perturber.changes(sentences[k], sentences, rng):
            kind = "clause smuggled in" if change.kind == "smuggled" else _TITLES.get(change.kind, change.kind)
            spoilt.setdefault(kind, [*sentences[:k], change.text, *sentences[k + 1 :]])
    k = rng.randrange(len(sentences))
    spoilt["sentence dropped"] = [*sentences[:k], *sentences[k + 1 :]]
    spoilt["claim sentence added"] = [*sentences[:k], perturber.smuggled_sentence(rng), *sentences[k:]]
    return spoilt


_TITLES: Final = {
    "word": "content word swapped",
    "antonym": "antonym",
    "quantifier": "quantifier or modality",
    "number": "number changed",
    "name": "name changed",
    "negation": "negation",
    "roles": "two words exchanged",
    "garbled": "garbled word",
    "truncated": "sentence cut off",
    "dropped": "clause dropped",
    "condition": "condition added or dropped",
    "added": "clause added",
}


async def compare_all(analyzer: EntailmentAnalyzer, found: Sequence[Case], width: int = 32) -> list[FactReport]:
    """Every case's report, in order, with a progress bar."""
    reports: list[FactReport] = []
    for start in track(range(0, len(found), width), description="comparing rewrites"):
        chunk = found[start : start + width]
        reports += await asyncio.gather(*(analyzer.compare(case.original, case.rewritten) for case in chunk))
    return reports


def card(data: Path, folder: Path, seed: int = 0) -> list[str]:
    """Markdown tables: rejection and AUROC per kind on held-out topics and phrases; written rewrites; SNLI test."""
    analyzer = EntailmentAnalyzer(folder)
    found = cases(sentences_of(read_dolly(data, "heldout")), "heldout", seed + 17)
    written = written_cases()
    lines = ["Framings and perturbations of unseen answers", "", *_table(found, asyncio.run(compare_all(analyzer, found))), ""]
    lines += ["Rewrites written by hand, unseen topics", "", *_table(written, asyncio.run(compare_all(analyzer, written))), ""]
    return [*lines, *_snli(analyzer, data)]


def written_cases() -> list[Case]:
    """The rewrites of `data/facts` on topics that training never saw; paraphrases and reframings are the honest ones."""
    found = rewrites("test")
    topics = {topic: i for i, topic in enumerate(dict.fromkeys(each.topic for each in found))}
    return [Case(HONEST if r.faithful else r.kind, topics[r.topic], r.original, r.text) for r in found]


def _table(found: Sequence[Case], reports: Sequence[FactReport]) -> list[str]:
    """Intervals resample whole documents: the rewrites of one share its framings."""
    head = np.array([min(report.forward, report.backward) for report in reports])
    rejected = np.array([report.consistency < THRESHOLD for report in reports])
    alone = head < THRESHOLD
    honest = np.array([case.kind == HONEST for case in found])
    documents = np.array([case.document for case in found])

    def share(rows: NDArray[np.bool_]) -> str:
        return _shown(mean_interval(rejected[rows].astype(float), documents[rows].tolist()))

    def area(rows: NDArray[np.bool_]) -> str:
        asked = rows | honest
        scores, labels = head[asked], honest[asked]
        return _shown(interval(lambda i: auroc(scores[i], labels[i]), documents[asked].tolist(), rounds=500))

    alarms = sum(bool(report.lost or report.gained) for report, kept in zip(reports, honest, strict=True) if kept)
    passed = _shown(mean_interval(1.0 - rejected[honest], documents[honest].tolist()))
    lines = [
        f"Honest rewrites that pass (consistency >= {THRESHOLD}): {passed} of {honest.sum()}; "
        f"head alone {1 - alone[honest].mean():.3f}; false alarms of the checks {alarms}.",
        "",
        "| perturbation | n | rejected, whole analyzer | rejected, head alone | AUROC, head alone |",
        "|---|---|---|---|---|",
    ]
    kinds = {
        kind: np.array([case.kind == kind for case in found]) for kind in dict.fromkeys(c.kind for c in found) if kind != HONEST
    }
    for kind, rows in (kinds | {"all": ~honest}).items():
        lines.append(f"| {kind} | {rows.sum()} | {share(rows)} | {alone[rows].mean():.3f} | {area(rows)} |")
    return lines


def _snli(analyzer: EntailmentAnalyzer, data: Path, count: int = 1500) -> list[str]:
    """Entailed or not at the threshold of the product, and AUROC, on `count` pairs of SNLI test."""
    test = read_snli(data, "test")
    pairs = random.Random(0).sample(test, min(count, len(test)))
    found: list[float] = []
    for start in track(range(0, len(pairs), 100), description="SNLI test"):
        chunk = pairs[start : start + 100]
        encoded = analyzer.encoder.encode_now([text for pair in chunk for text in (pair.premise[0], pair.hypothesis)])
        found += analyzer.probabilities(_candidates(chunk, encoded))
    scores, labels = np.array(found), np.array([pair.label == 1 for pair in pairs])
    each = range(len(pairs))
    right = _shown(mean_interval(((scores >= THRESHOLD) == labels).astype(float), each))
    area = _shown(interval(lambda i: auroc(scores[i], labels[i]), each, rounds=500))
    majority = max(labels.mean(), 1 - labels.mean())
    return [
        f"SNLI test, {len(pairs)} pairs drawn at random, entailed or not at {THRESHOLD}: accuracy {right} "
        f"(majority {majority:.3f}), AUROC {area}."
    ]


def _candidates(pairs: Sequence[Pair], encoded: Sequence[Encoded]) -> list[Candidate]:
    return [
        Candidate(premise.tokens, hypothesis.tokens, features(pair.premise[0], pair.hypothesis))
        for pair, premise, hypothesis in zip(pairs, encoded[::2], encoded[1::2], strict=True)
    ]


def _shown(figure: tuple[float, float, float]) -> str:
    return f"{figure[0]:.3f} ({figure[1]:.3f} to {figure[2]:.3f})"
