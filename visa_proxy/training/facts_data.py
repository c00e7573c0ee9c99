"""Sentence pairs for the entailment head: public NLI and, most of all, framings and perturbations of assistant answers.

The data sets are read from a folder the caller names (`--data`): `e-snli/`, `mnli-llmsknow/`, `conjnli/`, `dolly/`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.errors import ConfigError
from visa_proxy.training import jsonl, perturb
from visa_proxy.training.corpus import Answer
from visa_proxy.training.phrases import Phrase, phrases

Split = Literal["train", "heldout"]
LENGTHS: Final = (3, 6)
"""Sentences of an answer that whole rewrites are made of."""
LABELS: Final = ("entailment", "neutral", "contradiction")
_HINT: Final = "; --data names the folder that holds it"

_MNLI: Final = re.compile(
    r'^For the statement, "(.*)", does the hypothesis "(.*)" represent entailment, contradiction, or neutrality\?$',
    re.DOTALL,
)
_IMPERATIVE: Final = re.compile(
    r"(?:Add|Ask|Avoid|Be|Bring|Buy|Call|Check|Choose|Clean|Cook|Create|Cut|Drink|Eat|Find|Follow|Get|Give|Go|Have|Keep|Learn|Look|"
    r"Make|Move|Pay|Pick|Place|Plan|Play|Practice|Put|Read|Remove|Rinse|Set|Share|Spend|Start|Stay|Take|Talk|Try|Turn|Use|Visit|"
    r"Walk|Wash|Watch|Wear|Work|Write) "
)


@dataclass(frozen=True)
class Pair:
    """Does what the premise sentences say cover what the hypothesis says?"""

    premise: tuple[str, ...]
    hypothesis: str
    label: int
    """1 entailed, 0 not."""
    kind: str


class Framer:
    """Value-laden versions of a sentence that add no claim, from the phrase lists of one split."""

    def __init__(self, split: Split) -> None:
        self._by_form: dict[str, list[Phrase]] = {}
        for phrase in phrases(split):
            self._by_form.setdefault(phrase.form, []).append(phrase)

    def sentence(self, rng: random.Random) -> str:
        """An opening or a closing: a framing on its own."""
        return rng.choice(self._by_form[rng.choice(["opening", "closing"])]).text

    def lead(self, sentence: str, rng: random.Random) -> str:
        return f"{rng.choice(self._by_form['lead']).text} {perturb.lower_first(sentence)}"

    def tail(self, sentence: str, rng: random.Random) -> str:
        return perturb.with_tail(sentence, rng.choice(self._by_form["tail"]).text)

    def reframe(self, sentence: str, rng: random.Random) -> str | None:
        """The neutral lead-in of `sentence` replaced by a loaded one, where it has one that the lists know."""
        fitting = [p for p in self._by_form["reframe"] if sentence.startswith(p.neutral + " ")]
        if not fitting:
            return None
        phrase = rng.choice(fitting)
        return phrase.text + sentence[len(phrase.neutral) :]

    def neutral(self, sentence: str, rng: random.Random) -> str:
        """An imperative with a neutral lead-in in front, so that reframes have something to replace; else unchanged."""
        if not _IMPERATIVE.match(sentence) or rng.random() < 0.4:
            return sentence
        lead_ins = [p.neutral for p in self._by_form["reframe"] if re.search(r"(?:can|should|to)$", p.neutral)]
        return f"{rng.choice(lead_ins)} {perturb.lower_first(sentence)}" if lead_ins else sentence

    def frame(self, sentence: str, rng: random.Random) -> str:
        """Any one framing, or lead and tail together."""
        reframed = self.reframe(sentence, rng)
        if reframed and rng.random() < 0.6:
            return reframed if rng.random() < 0.6 else self.tail(reframed, rng)
        how = rng.random()
        if how < 0.42:
            return self.lead(sentence, rng)
        return self.tail(sentence, rng) if how < 0.84 else self.tail(self.lead(sentence, rng), rng)


@dataclass(frozen=True)
class Change:
    """A perturbed sentence and what still holds between it and the sentence it came from; None: undecided, not used."""

    kind: str
    text: str
    forward: int | None
    """Does the original sentence entail `text`?"""
    backward: int | None
    """Does `text` entail the original sentence?"""


class Perturber:
    """Draws perturbations; knows the word kinds and names of a corpus."""

    def __init__(self, sentences: Sequence[str], split: Split) -> None:
        self._split: Split = split
        self._lexicon = perturb.Lexicon(sentences)
        self._names = sorted({m for s in sentences for m in re.findall(r"(?<=[a-z] )[A-Z][a-z]{3,}\b", s)})
        self._clauses = [s for s in sentences if 3 <= len(s.split()) <= 9 and s.endswith(".")]

    def changes(self, sentence: str, document: Sequence[str], rng: random.Random) -> list[Change]:
        """Every kind of perturbation that `sentence` allows, in random order."""
        plain: list[tuple[str, str | None, int | None, int | None]] = [
            ("word", perturb.swap_word(sentence, self._lexicon, rng), 0, 0),
            ("antonym", perturb.antonym(sentence, rng), 0, 0),
            ("quantifier", perturb.quantifier(sentence, rng), 0, 0),
            ("number", perturb.change_number(sentence, rng), 0, 0),
            ("name", perturb.change_name(sentence, self._names, rng), 0, 0),
            ("negation", perturb.negate(sentence, rng), 0, 0),
            ("roles", perturb.swap_roles(sentence, rng), 0, 0),
            ("garbled", perturb.garble(sentence, rng), 0, None),
            ("truncated", perturb.truncate(sentence, rng), None, 0),
            ("dropped", perturb.drop_clause(sentence, rng), None, 0),
            ("condition", perturb.drop_condition(sentence), 0, 0),
            ("condition", f"{self._pick('conditions', rng)} {perturb.lower_first(sentence)}", 0, 0),
            ("added", self._add_clause(sentence, document, rng), 0, 1),
            ("smuggled", self._smuggle(sentence, rng), 0, 1),
        ]
        found = [Change(kind, text, f, b) for kind, text, f, b in plain if text and text != sentence]
        rng.shuffle(found)
        return found

    def smuggled_sentence(self, rng: random.Random) -> str:
        return self._pick("smuggled_sentences", rng)

    def _pick(self, name: str, rng: random.Random) -> str:
        return rng.choice(perturb.texts(name, self._split))

    def _smuggle(self, sentence: str, rng: random.Random) -> str:
        if rng.random() < 0.3:
            return f"{self._pick('smuggled_leads', rng)} {perturb.lower_first(sentence)}"
        return perturb.with_tail(sentence, self._pick("smuggled_tails", rng))

    def _add_clause(self, sentence: str, document: Sequence[str], rng: random.Random) -> str | None:
        topical = [s for s in document if s != sentence and 3 <= len(s.split()) <= 12]
        clauses = topical if topical and rng.random() < 0.5 else self._clauses
        if not clauses:
            return None
        clause = rng.choice(clauses)
        connective = rng.choice([", and ", ", and ", ", so ", ", because ", ", while ", "; ", ", since ", ", but "])
        return f"{sentence.rstrip('.!?:; ')}{connective}{perturb.lower_first(clause).rstrip('.!?:; ')}."


def sentences_of(answers: Sequence[Answer]) -> list[list[str]]:
    """Their sentences, one list an answer: those of 4-32 words that end like a sentence."""
    return [[s for s in split_sentences(a.text) if 4 <= len(s.split()) <= 32 and s[-1] in ".!?"] for a in answers]


def synthetic_pairs(
    documents: Sequence[Sequence[str]],
    split: Split,
    seed: int,
    groups: int,
    negatives: int = 5,
    *,
    without: Container[int] = (),
) -> Iterator[Pair]:
    """Pairs around `groups` sentences of `documents` (lists of sentences), less those of the documents `without`
    names by index.

    Raises ConfigError where no document is long enough to measure whole rewrites on.
    """
    usable = sum(LENGTHS[0] <= len(document) <= LENGTHS[1] for document in documents)
    if not usable:
        raise ConfigError(
            [
                f"--data: dolly: {len(documents)} usable answers, 0 of them with {LENGTHS[0]}-{LENGTHS[1]} sentences of 4-32 words; at least "
                "1 of these is needed, and 1 more in the share that the recipe's `validation` holds back"
            ]
        )
    rng = random.Random(seed)
    framer = Framer(split)
    perturber = Perturber([s for document in documents for s in document], split)
    places = [(number, i) for number, document in enumerate(documents) for i in range(len(document))]
    rng.shuffle(places)
    elsewhere = "The museum is closed on Mondays."
    for number, i in places[:groups]:
        document = documents[number]
        sentence = framer.neutral(document[i], rng)
        context = [*document[:i], sentence, *document[i + 1 :]]
        pairs = list(_group(sentence, i, context, framer, perturber, rng, negatives))
        if number not in without:
            yield from pairs
            yield Pair((sentence,), elsewhere, 0, "topical")
            elsewhere = sentence


def _group(
    sentence: str,
    i: int,
    document: Sequence[str],
    framer: Framer,
    perturber: Perturber,
    rng: random.Random,
    negatives: int,
) -> Iterator[Pair]:
    framed = [framer.frame(sentence, rng) for _ in range(2)]
    if similar := perturb.paraphrase(sentence, rng):
        framed.append(similar)
    neighbour = document[i + 1] if i + 1 < len(document) else document[i - 1] if i else None
    window = (sentence, neighbour) if neighbour and i + 1 < len(document) else (neighbour, sentence) if neighbour else (sentence,)
    for text in framed:
        yield Pair(window if rng.random() < 0.25 else (sentence,), text, 1, "framing")
        yield Pair((text,), sentence, 1, "framing")
    yield Pair((framed[0],), framed[1], 1, "framing")
    yield Pair((framed[0],), framer.sentence(rng), 1, "alone")
    yield Pair(window, framer.sentence(rng), 1, "alone")
    yield Pair((sentence,), perturber.smuggled_sentence(rng), 0, "smuggled")
    for change in perturber.changes(sentence, document, rng)[:negatives]:
        text = framer.frame(change.text, rng) if rng.random() < 0.3 else change.text
        other = rng.choice(framed[:2]) if rng.random() < 0.3 else sentence
        if change.forward is not None:
            yield Pair(window if rng.random() < 0.25 else (other,), text, change.forward, change.kind)
        if change.backward is not None:
            yield Pair((text,), other, change.backward, change.kind)
    if neighbour:
        yield from _topical(framed, sentence, neighbour, window, rng)


def _topical(framed: Sequence[str], sentence: str, neighbour: str, window: tuple[str, ...], rng: random.Random) -> Iterator[Pair]:
    premise = rng.choice([sentence, *framed[:2]])
    yield Pair((premise,), neighbour, 0, "topical")
    yield Pair((neighbour,), premise, 0, "topical")
    if len(window[0].split()) + len(window[1].split()) <= 40 and window[0].endswith("."):
        joined = f"{window[0][:-1]}{rng.choice([', and ', '; ', ', and '])}{perturb.lower_first(window[1])}"
        yield Pair(window, joined, 1, "joined")
        yield Pair((joined,), rng.choice(window), 1, "joined")
        yield Pair((rng.choice(window),), joined, 0, "added")


def read_snli(data: Path, part: Literal["dev", "test"]) -> list[Pair]:
    """e-SNLI's dev or test sentences. Raises ConfigError when they are not there or no such sentences."""
    names = [data / "e-snli" / f"{name}.{part}" for name in ("s1", "s2", "labels")]
    columns = [jsonl.text(path, _HINT).removesuffix("\n").split("\n") for path in names]
    counts = [len(column) for column in columns]
    if len(set(counts)) > 1:
        raise ConfigError([f"{', '.join(map(str, names))}: found {counts} lines, allowed: as many in each"])
    rows = [jsonl.Row(f"{names[2]}, line {n}", {"label": label}) for n, label in enumerate(columns[2], 1)]
    labels = [int(row.one_of("label", *LABELS) == "entailment") for row in rows]
    return [Pair((_tidy(p),), _tidy(h), label, "snli") for p, h, label in zip(*columns[:2], labels, strict=True)]


def read_mnli(data: Path, part: Literal["train", "validation"]) -> list[Pair]:
    """LLMsKnow's MultiNLI sample, without duplicates. Raises ConfigError as `jsonl.table` does."""
    path = data / "mnli-llmsknow" / f"mnli_{part}.csv"
    found: dict[tuple[str, str], Pair] = {}
    for row in jsonl.table(path, ("Question", "Answer"), delimiter=",", hint=_HINT):
        match = _MNLI.match(row.text("Question"))
        if match is None:
            raise row.wrong("Question", row.text("Question"), 'For the statement, "…", does the hypothesis "…" represent …')
        if len(match[1].split()) <= 40 and match[1].strip() and match[2].strip():
            label = int(row.one_of("Answer", *LABELS) == "entailment")
            found[match[1], match[2]] = Pair((match[1].strip(),), match[2].strip(), label, "mnli")
    return list(found.values())


def read_conjnli(data: Path) -> list[Pair]:
    """ConjNLI's automatically created training part. Raises ConfigError as `jsonl.table` does."""
    path = data / "conjnli" / "adversarial_train_15k.tsv"
    return [
        Pair((row.text("Premise"),), row.text("Hypothesis"), int(row.one_of("Label", *LABELS) == "entailment"), "conjnli")
        for row in jsonl.table(path, ("Premise", "Hypothesis", "Label"), hint=_HINT)
        if len(row.text("Premise").split()) <= 40
    ]


def _tidy(sentence: str) -> str:
    """e-SNLI is tokenised: "a deli ." becomes "a deli."."""
    return re.sub(r"\s+([.,!?;:'’])", r"\1", sentence.strip())
