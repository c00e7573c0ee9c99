"""Rewriting pairs from neutral text and value phrases: the rewriter's cold start before GRPO (paper, section 3.2).

A rewrite is the source with phrases at places; a place is before a sentence (opening, lead, reframe), before its full stop
(tail) or after the last one (closing). Order and number of the phrases follow from the control line, only wording and place
are drawn: a small model decoded greedily can then learn when to insert and when it is done.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from visa_proxy.rewriter.prompt import render
from visa_proxy.training.phrases import Form, Phrase
from visa_proxy.training.sources import Piece, Sources, cut_protected
from visa_proxy.values import Space, ValueVector

WORDS_PER_PHRASE: Final = 6.5
LONGER: Final = 0.4
"""A rewrite is about 40 % longer than its source at most; a single sentence may carry two phrases all the same."""
_NO_LEAD: Final = re.compile(
    r"(?:However|But|And|So|Or|Then|Also|For example|In addition|Additionally|Furthermore|Therefore|Finally|Yes|No|First|"
    r"Firstly|Second|Secondly|Third|Next|Lastly|Moreover|Instead|Thus|Because|While|Although|If|When|As|In|On|At|For|With|To|"
    r"By|After|From)\b"
)
_STOP: Final = re.compile(r"[\w⟧)%`*]\.\Z")
_SHORT: Final = re.compile(r"\b(?:etc|[A-Z]|e\.g|i\.e|vs|[ap]\.m)\.\Z")
_FIRST: Final = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")


@dataclass(frozen=True)
class Pair:
    """One training example: the chat message the rewriter gets, and its answer."""

    prompt: str
    answer: str
    source: str
    target: ValueVector


@dataclass
class Marks:
    """The phrases of one text: piece index to phrase, by place."""

    before: dict[int, Phrase] = field(default_factory=dict)
    """Opening, lead or reframe."""
    tail: dict[int, Phrase] = field(default_factory=dict)
    closing: Phrase | None = None

    def all(self) -> list[Phrase]:
        return [*self.before.values(), *self.tail.values(), *([self.closing] if self.closing else [])]


class Synthesizer:
    """Draws pairs. Deterministic in the `random.Random` it is given."""

    def __init__(self, space: Space, sources: Sources, phrases: Sequence[Phrase]) -> None:
        self.space = space
        self.sources = sources
        self.values = tuple(dict.fromkeys(phrase.value for phrase in phrases))
        self._bank: dict[tuple[str, float, Form], list[Phrase]] = {}
        for phrase in phrases:
            self._bank.setdefault((phrase.value, phrase.level, phrase.form), []).append(phrase)

    def pair(self, rng: random.Random) -> Pair:
        """70 % neutral sources; the rest carry phrases already, want none, or are as wanted."""
        pieces = cut_protected(self.sources.draw(rng))
        kind = rng.random()
        target = self.target(rng)
        if kind < 0.70:
            return self._made(pieces, Marks(), self.plan(pieces, target, rng), target)
        if kind < 0.76:
            return self._made(pieces, Marks(), Marks(), {})
        carried = self.plan(pieces, target, rng)
        if kind < 0.82:
            return self._made(pieces, carried, Marks(), {})
        if kind < 0.87:
            return self._made(pieces, carried, carried, target)
        wanted = self._varied(target, rng)
        return self._made(pieces, carried, self.plan(pieces, wanted, rng, self._moved(carried, wanted, rng)), wanted)

    def target(self, rng: random.Random) -> dict[str, float]:
        """One to four values, now and then six; neighbours mostly alike, opposites mostly opposed (paper, App. A.2)."""
        count = min(len(self.values), rng.choices((1, 2, 3, 4, 5, 6), (24, 29, 27, 13, 4, 3))[0])
        names = rng.sample(self.values, count)
        anchor, sign = names[0], rng.choice((1, 1, -1))
        levels: dict[str, float] = {}
        for name in names:
            apart = abs(self.space.index[name] - self.space.index[anchor])
            apart = min(apart, len(self.space) - apart)
            direction = rng.choice((1, -1)) if apart == 3 or rng.random() < 0.25 else 1 if apart < 3 else -1
            levels[name] = sign * (1 if name == anchor else direction) * rng.choice((1.0, 1.0, 1.0, 0.5, 0.5))
        return {name: levels[name] for name in self.space.names if name in levels}

    def plan(self, pieces: Sequence[Piece], target: Mapping[str, float], rng: random.Random, marks: Marks | None = None) -> Marks:
        """Phrases for `target`, strong values first, one place a sentence unless phrases outnumber sentences."""
        marks = marks or Marks()
        prose = [i for i, piece in enumerate(pieces) if _can_tail(piece) or self._can_lead(piece)]
        queue = _queue(pieces, target, marks)
        if queue and not marks.before.get(0) and rng.random() < (0.05 if prose else 0.6):
            marks.before[0] = self._pick(queue.pop(0), "opening", rng, marks)
        close = marks.closing is None and rng.random() < 0.35
        last: Form | None = None
        for position, i in enumerate(prose):
            crowded = len(queue) > len(prose) - position + int(marks.closing is None) - 1
            if not queue or (close and len(queue) == 1):
                break
            opened = i in marks.before
            if not opened and i not in marks.tail:
                form = self._form_before(pieces[i], queue[0], last, crowded, rng)
                if form:
                    marks.before[i] = (
                        self._reframed(pieces[i], queue.pop(0), rng)
                        if form == "reframe"
                        else self._pick(queue.pop(0), "lead", rng, marks)
                    )
                    last, opened = "lead", True
            if queue and i not in marks.tail and _can_tail(pieces[i]) and (crowded or not opened):
                marks.tail[i] = self._pick(queue.pop(0), "tail", rng, marks)
                last = "tail"
        if queue and marks.closing is None:
            marks.closing = self._pick(queue.pop(0), "closing", rng, marks)
        return marks

    def _form_before(
        self, piece: Piece, need: tuple[str, float], last: Form | None, crowded: bool, rng: random.Random
    ) -> Form | None:
        if self._neutral(piece, need) and rng.random() < 0.85:
            return "reframe"
        if not self._can_lead(piece):
            return None
        # Almost strict alternation: a lead starts with one of many tokens, its absence with one, so that greedy decoding
        # chooses a lead only where it is nearly certain.
        chance = 0.95 if crowded or not _can_tail(piece) else {"lead": 0.05, "tail": 0.95}.get(last or "", 0.4)
        return "lead" if rng.random() < chance else None

    def _pick(self, need: tuple[str, float], form: Form, rng: random.Random, marks: Marks | None = None) -> Phrase:
        """A phrase that `marks` does not hold yet."""
        bank = self._bank[(*need, form)]
        said = marks.all() if marks else []
        return rng.choice([phrase for phrase in bank if phrase not in said] or bank)

    def _neutral(self, piece: Piece, need: tuple[str, float]) -> list[Phrase]:
        reframes = self._bank.get((*need, "reframe"), [])
        return [p for p in reframes if piece.prose and piece.text.startswith(p.neutral + " ")]

    def _reframed(self, piece: Piece, need: tuple[str, float], rng: random.Random) -> Phrase:
        return rng.choice(self._neutral(piece, need))

    def _can_lead(self, piece: Piece) -> bool:
        """A lead fits before a statement whose first word may lose its capital, or is a placeholder or "I"."""
        text = piece.text
        if not piece.prose or not text.endswith(".") or len(text.split()) < 4 or _NO_LEAD.match(text):
            return False
        first = _FIRST.match(text)
        return text[0] == "⟦" or bool(first and (first[0] == "I" or first[0].lower() in self.sources.common))

    def _moved(self, carried: Marks, wanted: Mapping[str, float], rng: random.Random) -> Marks:
        """`carried` with every phrase kept, exchanged for the wanted level or taken out."""

        def moved(phrase: Phrase) -> Phrase | None:
            level = wanted.get(phrase.value)
            if level is None or level == phrase.level:
                return phrase if level else None
            if phrase.form == "reframe":
                return None
            return self._pick((phrase.value, level), phrase.form, rng)

        before = {i: new for i, old in carried.before.items() if (new := moved(old))}
        tail = {i: new for i, old in carried.tail.items() if (new := moved(old))}
        return Marks(before, tail, moved(carried.closing) if carried.closing else None)

    def _varied(self, target: Mapping[str, float], rng: random.Random) -> dict[str, float]:
        """Another target that shares some values with `target`, some of them at another level."""
        kept: dict[str, float] = {}
        for name, level in target.items():
            if rng.random() < 0.6:
                kept[name] = level if rng.random() < 0.6 else rng.choice((1.0, 0.5, -0.5, -1.0))
        merged = {**self.target(rng), **kept} if rng.random() < 0.6 or not kept else kept
        names = [name for name in self.space.names if name in merged]
        return {name: merged[name] for name in sorted(rng.sample(names, min(4, len(names))), key=names.index)}

    def _made(self, pieces: Sequence[Piece], old: Marks, new: Marks, target: Mapping[str, float]) -> Pair:
        source = written(pieces, old)
        vector = ValueVector.of(self.space, target)
        message = render("compact", query="", text=source, target=vector)[0]["content"]
        return Pair(message, written(pieces, new), source, vector)


def written(pieces: Sequence[Piece], marks: Marks) -> str:
    """The text with its phrases in place."""
    out: list[str] = []
    for i, piece in enumerate(pieces):
        text = piece.text
        if phrase := marks.tail.get(i):
            text = text[:-1] + phrase.text + "."
        if phrase := marks.before.get(i):
            text = _begun(text, piece.prose, phrase)
        out += [text, piece.gap]
    if marks.closing:
        tight = bool(pieces) and pieces[-1].prose
        out = ["".join(out).rstrip(), " " if tight else "\n\n", marks.closing.text]
    return "".join(out).strip("\n ")


def _begun(text: str, prose: bool, phrase: Phrase) -> str:
    if phrase.form == "opening":
        return f"{phrase.text}{' ' if prose else chr(10) * 2}{text}"
    if phrase.form == "reframe":
        return phrase.text + text[len(phrase.neutral) :]
    first = _FIRST.match(text)
    keep = first is None or first[0].split("'")[0].split("’")[0] == "I"
    return f"{phrase.text} {text if keep else text[0].lower() + text[1:]}"


def _can_tail(piece: Piece) -> bool:
    """A tail goes before a plain full stop of a sentence long enough to carry it."""
    return piece.prose and len(piece.text.split()) >= 4 and bool(_STOP.search(piece.text)) and not _SHORT.search(piece.text)


def _queue(pieces: Sequence[Piece], target: Mapping[str, float], marks: Marks) -> list[tuple[str, float]]:
    """What is still to be said, in order: strong values, mild ones, strong ones again, as far as length allows."""
    words = sum(len(piece.text.split()) for piece in pieces)
    strong = [item for item in target.items() if abs(item[1]) == 1.0]
    mild = [item for item in target.items() if abs(item[1]) < 1.0]
    rounds = [*strong, *mild, *strong, *(strong if sum(piece.prose for piece in pieces) >= 6 else [])]
    room = max(1 if words < 9 else 2, round(LONGER * words / WORDS_PER_PHRASE))
    for phrase in marks.all():
        if (said := (phrase.value, phrase.level)) in rounds:
            rounds.remove(said)
    return rounds[: max(0, room - len(marks.all()))]
