"""VCR-mini: synthetic triplets over natural prose, in kind those of VCR-45K (paper, section 4.1 and App. C), in number as many as wanted.

Texts are answers of people (databricks-dolly-15k, from a folder) and the neutral ones of the annotated corpus in this package. A value is
expressed by phrases before, within and behind sentences, or by the manner in which something is done. Mechanisms:

    insert      a neutral answer to one that expresses the target
    woven       the same, one of the values by an adverb in the sentence
    exchange    what is carried becomes what is wanted: other values, or the other side of them
    intensity   the same value at another level of the same sign
    removal     what is carried goes, all of it or a part

Whole topics are held out, and with them some of the phrases (`phrases.phrases`).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from visa_proxy.errors import ConfigError
from visa_proxy.facts.checks import differences
from visa_proxy.shield.preserve import protect
from visa_proxy.training import annotated
from visa_proxy.training.corpus import clean, read_dolly
from visa_proxy.training.labelled import Part, part_of
from visa_proxy.training.phrases import phrases
from visa_proxy.training.sources import Piece, Sources, cut_protected, reworded
from visa_proxy.training.synthesis import Marks, Synthesizer, written
from visa_proxy.training.triplets import Triplet, named
from visa_proxy.training.vcr.manners import manners, woven
from visa_proxy.values import ValueVector, load_space

Mechanism = Literal["insert", "woven", "exchange", "intensity", "removal"]
MECHANISMS: Final[tuple[Mechanism, ...]] = get_args(Mechanism)
WEIGHTS: Final = (38, 12, 20, 14, 16)
"""Of `MECHANISMS`: about as many triplets add to what an answer says as change or take away from it."""
COUNTS: Final = (45, 35, 20)
"""Weights of one, two and three values."""
LEVELS: Final = (1.0, 0.5, -0.5, -1.0)
OWN: Final = 3
"""How often an answer of the annotated corpus comes round while one of dolly does once: few, but everyday talk as assistants hear it."""
SPREAD: Final = 4.0
"""How far, in triplets, values may run ahead of others by chance."""
TRIES: Final = 50
"""Texts that are tried for one draw of values, and draws: short texts have no room for three values, few take an adverb."""


@dataclass(frozen=True)
class Text:
    """A neutral answer to a question."""

    query: str
    topic: str
    """What the split goes by: a topic of the corpus, or the instruction itself."""
    text: str
    source: Literal["dolly", "annotated"]


def texts(data_dir: Path) -> list[Text]:
    """The neutral answers, in a fixed order, each under one topic. Raises ConfigError where dolly is not in `data_dir` or not dolly."""
    # The same answer to two questions would be learnt from and tested on.
    once = {each.text: Text(each.instruction, each.instruction, each.text, "dolly") for each in read_dolly(data_dir)}
    neutral = [
        Text(row.query, row.topic, clean(row.answer), "annotated")
        for row in annotated.bundled(load_space("schwartz"))
        if not row.values.any() and row.kind in ("neutral", "words")
    ]
    return [*once.values(), *neutral * OWN]


class _Writer(Synthesizer):
    """Plans what a text says, and how that becomes what it should say."""

    def rewritten(self, pieces: Sequence[Piece], carried: Marks, wanted: Mapping[str, float], rng: random.Random) -> Marks:
        """`carried` with what is not wanted exchanged or taken out, and the rest of `wanted` put in."""
        return self.plan(pieces, wanted, rng, self.left(carried, wanted, rng))

    def left(self, carried: Marks, wanted: Mapping[str, float], rng: random.Random) -> Marks:
        """`carried` with what is not wanted exchanged or taken out, and no more."""
        return self._moved(carried, wanted, rng)


class Mini:
    """Draws triplets. The same texts and seed give the same ones."""

    def __init__(self, sources: Sequence[Text], seed: int) -> None:
        self.space = load_space("schwartz")
        self.rng = random.Random(f"vcr-mini {seed}")
        self.texts = list(sources)
        self.rng.shuffle(self.texts)
        self.used: Counter[tuple[str, float]] = Counter()
        """How often each value has been wanted at each level."""
        drawn = Sources.of([each.text for each in sources])
        held = _Writer(self.space, drawn, phrases())
        self.writers: dict[Part, _Writer] = {
            "train": _Writer(self.space, drawn, phrases("train")),
            "validation": held,
            "test": held,
        }
        self._place = 0

    def triplets(self, size: int) -> Iterator[Triplet]:
        """`size` of them; texts come round in turn. Raises ConfigError where hardly a text has room for values."""
        return (self._triplet(f"mini-{number:05d}") for number in range(size))

    def _triplet(self, name: str) -> Triplet:
        for _ in range(TRIES):
            mechanism = self.rng.choices(MECHANISMS, WEIGHTS)[0]
            carried, wanted = self._levels(mechanism)
            for _ in range(TRIES):
                text = self._text()
                part = part_of(f"topic {text.topic}")
                if (made := self._made(mechanism, carried, wanted, text.text, self.writers[part])) is not None:
                    self.used.update(wanted.items())
                    before, after = ValueVector.of(self.space, carried), ValueVector.of(self.space, wanted)
                    source = f"mini:{mechanism}:{text.source}"
                    return Triplet(name, text.topic, part, text.query, *made, before, after, after, source)
        raise ConfigError([f"--data: {len(self.texts)} neutral texts, and {TRIES * TRIES} draws gave none with room for values"])

    def _text(self) -> Text:
        self._place += 1
        return self.texts[self._place % len(self.texts)]

    def _levels(self, mechanism: Mechanism) -> tuple[dict[str, float], dict[str, float]]:
        """What the answer carries and what is wanted, one to three values each, or none."""
        rng = self.rng
        count = rng.choices((1, 2, 3), COUNTS)[0]
        drawn = self._rare()
        wanted, others = dict(drawn[:count]), dict(drawn[count:])
        if mechanism in ("insert", "woven"):
            return {}, wanted
        if mechanism == "intensity":
            return {name: math.copysign(1.5 - abs(level), level) for name, level in wanted.items()}, wanted
        if mechanism == "removal":
            # Half of the time nothing is wanted: the answer is to be neutral.
            kept = dict(drawn[: count - 1]) if rng.random() < 0.5 else {}
            return wanted, kept
        if rng.random() < 0.3:
            return dict(list(others.items())[:count]), wanted
        return {
            name: -level if rng.random() < 0.6 else -math.copysign(1.5 - abs(level), level) for name, level in wanted.items()
        }, wanted

    def _rare(self) -> list[tuple[str, float]]:
        """Six values with a level each, those wanted least so far first."""
        cells = [(value, level) for value in self.space.names for level in LEVELS]
        cells.sort(key=lambda cell: self.used[cell] + SPREAD * self.rng.random())
        chosen: dict[str, float] = {}
        for value, level in cells:
            chosen.setdefault(value, level)
        return list(chosen.items())[:6]

    def _made(
        self, mechanism: Mechanism, carried: Mapping[str, float], wanted: Mapping[str, float], text: str, writer: _Writer
    ) -> tuple[str, str] | None:
        """The answer and its rewrite; None where `text` has no room, or where the two would not state the same facts."""
        protected = protect(reworded(text, self.rng) if self.rng.random() < 0.5 else text)
        pieces = cut_protected(protected)
        if mechanism == "woven":
            name, level = self.rng.choice(list(wanted.items()))
            told = self._woven(pieces, self.rng.choice(manners()[name, level]))
            if told is None:
                return None
            old, rest = Marks(), {other: wanted[other] for other in wanted if other != name}
        else:
            told, rest = pieces, dict(wanted)
            old = writer.plan(pieces, carried, self.rng) if carried else Marks()
        new = writer.left(old, rest, self.rng) if mechanism == "removal" else writer.rewritten(told, old, rest, self.rng)
        if _said(old) != carried or _said(new) != rest:
            return None
        answer, rewrite = protected.restore(written(pieces, old)), protected.restore(written(told, new))
        # A phrase may negate or name what stands beside it: such a pair would teach the rewriter to change facts.
        return None if answer == rewrite or any(differences(answer, rewrite)) else (answer, rewrite)

    def _woven(self, pieces: Sequence[Piece], manner: str) -> list[Piece] | None:
        """`pieces` with one of them done in that manner."""
        places = [(i, text) for i, piece in enumerate(pieces) if piece.prose and (text := woven(piece.text, manner))]
        if not places:
            return None
        place, text = self.rng.choice(places)
        return [replace(piece, text=text) if i == place else piece for i, piece in enumerate(pieces)]


def _said(marks: Marks) -> dict[str, float]:
    return {phrase.value: phrase.level for phrase in marks.all()}


@dataclass
class Counts:
    """What a data set holds."""

    parts: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    """ "mini:insert:dolly" to the number of triplets."""
    topics: dict[str, set[str]] = field(default_factory=dict)
    values: Counter[tuple[str, float]] = field(default_factory=Counter)
    """(value, level) to the number of targets."""
    sizes: Counter[int] = field(default_factory=Counter)
    """Number of values of a target to the number of triplets."""

    def counted(self, triplets: Iterable[Triplet]) -> Iterator[Triplet]:
        """The same, one by one."""
        for triplet in triplets:
            levels = named(triplet.target)
            self.parts[triplet.split] += 1
            self.sources[triplet.source] += 1
            self.topics.setdefault(triplet.split, set()).add(triplet.topic)
            self.values.update(levels.items())
            self.sizes[len(levels)] += 1
            yield triplet

    def to_dict(self) -> dict[str, Any]:
        """As it is written beside the data set."""
        return {
            "triplets": sum(self.parts.values()),
            "parts": dict(sorted(self.parts.items())),
            "topics": {part: len(topics) for part, topics in sorted(self.topics.items())},
            "sources": dict(sorted(self.sources.items())),
            "values_in_target": {str(size): count for size, count in sorted(self.sizes.items())},
            "levels": {
                name: {f"{level:+g}": self.values[name, level] for level in LEVELS} for name in load_space("schwartz").names
            },
        }
