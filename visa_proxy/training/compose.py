"""Putting value phrases into neutral sentences, with the label each sentence then has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.phrases import Phrase
from visa_proxy.values import ValueVector, load_space

Array = NDArray[np.float32]
NOTHING: Final[Mapping[str, float]] = MappingProxyType({})
# fmt: off
IMPERATIVES: Final = frozenset((
    "use", "make", "add", "take", "get", "start", "keep", "try", "check", "put", "choose", "look", "write",
    "read", "find", "ask", "go", "let", "set", "plan", "give", "avoid", "create", "buy", "bring", "remove",
    "place", "cook", "learn", "wash", "talk", "eat", "drink", "visit", "join", "watch", "listen", "pick",
    "cut", "turn", "call", "clean", "mix", "pour", "heat", "cover", "practice", "practise", "spend", "set",
    "offer", "share", "think", "work", "walk", "play", "open", "close", "follow", "help", "move",
))
# fmt: on
_IRREGULAR: Final = {"get": "getting", "put": "putting", "set": "setting", "let": "letting", "cut": "cutting"}
_LOWER: Final = re.compile(r"(?:The|A|An|This|That|These|Those|It|They|You|Your|We|If|When|There|In|On|For|To|Some|Most|Many)\b")


def insert(sentence: str, phrase: Phrase) -> str | None:
    """`sentence` with a lead, tail or reframe in it; None where it does not fit."""
    if phrase.form == "lead":
        return f"{phrase.text} {_lowered(sentence)}"
    if phrase.form == "tail":
        end = sentence[-1] if sentence[-1] in ".!?" else ""
        return f"{sentence[: len(sentence) - len(end)]}{phrase.text}{end}"
    if sentence.startswith(phrase.neutral + " "):
        return phrase.text + sentence[len(phrase.neutral) :]
    reframed = neutral_frame(sentence, phrase.neutral)
    return None if reframed is None else phrase.text + reframed[len(phrase.neutral) :]


def neutral_frame(sentence: str, frame: str) -> str | None:
    """An imperative sentence put behind a neutral lead-in: ("Use a pan.", "Start by") -> "Start by using a pan."."""
    verb, _, rest = sentence.partition(" ")
    verb = verb.lower()
    if verb not in IMPERATIVES or not rest:
        return None
    if frame.endswith((" by", "Consider")):
        verb = _IRREGULAR.get(verb) or (verb[:-1] if verb.endswith("e") and verb != "see" else verb) + "ing"
    return f"{frame} {verb} {rest}"


def dress(sentences: Sequence[str], phrases: Sequence[Phrase], order: np.random.Generator) -> tuple[list[str], Array]:
    """An answer with `phrases` in it: its sentences, and what each of them expresses, (sentences, 10).

    A sentence takes at most two phrases; a phrase that fits nowhere becomes no part of the answer.
    """
    texts = list(sentences)
    labels = np.zeros((len(texts), len(load_space("schwartz"))), np.float32)
    framed: list[tuple[str, Array]] = []
    ends: list[tuple[str, Array]] = []
    for phrase in sorted(phrases, key=lambda p: p.form != "reframe"):
        expressed = label({phrase.value: phrase.level})
        if phrase.form in ("opening", "closing"):
            pieces = split_sentences(phrase.text)
            (framed if phrase.form == "opening" else ends).extend(
                (piece, (expressed / len(pieces)).astype(np.float32)) for piece in pieces
            )
            continue
        for position in order.permutation(len(texts)):
            taken = np.count_nonzero(labels[position])
            changed = insert(texts[position], phrase) if taken < 2 and (phrase.form != "lead" or not taken) else None
            if changed is not None and len(split_sentences(changed)) == 1:
                texts[position] = changed
                labels[position] += expressed
                break
    before, after = [text for text, _ in framed], [text for text, _ in ends]
    extra = [each[None] for _, each in framed], [each[None] for _, each in ends]
    return before + texts + after, np.clip(np.concatenate([*extra[0], labels, *extra[1]]), -1, 1)


def label(levels: Mapping[str, float] = NOTHING) -> Array:
    """(10,): Schwartz's values by name, 0 for those that are not named."""
    return ValueVector.of(load_space("schwartz"), levels).array.astype(np.float32)


def _lowered(sentence: str) -> str:
    verb = sentence.split(" ", 1)[0].lower()
    return sentence[0].lower() + sentence[1:] if verb in IMPERATIVES or _LOWER.match(sentence) else sentence
