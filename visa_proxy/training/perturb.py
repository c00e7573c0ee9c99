"""What may and what may not happen to a sentence in a rewrite: the fact analyzer's synthetic examples, one function a
kind.

A framing or a small paraphrase says the same; every perturbation adds, drops, changes or garbles something. All
functions are deterministic in their `random.Random`.
"""

from __future__ import annotations

import functools
import importlib.resources
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import yaml

Split = Literal["train", "heldout"]

_FUNCTION: Final = frozenset(
    """a an the this that these those it its he she they we you i my your our their his her in on at by for from with
    to of as if when while and or but so then than also is are was were be been being am do does did have has had can
    could should would will may might must not no there here what how why who which where into out up down over under
    about more most some any all each other one such just very only too many much few own same both because since
    until before after them him us me yes""".split()
)
_DETERMINERS: Final = frozenset("a an the your this his her their its my our each every".split())
_VERB_CUES: Final = frozenset("to can should will must may you they we could would might not".split())
_AUXILIARY: Final = re.compile(r"\b(is|are|was|were|can|could|should|will|would|may|might|must|has|have|had)\b")
_CLAUSE: Final = re.compile(r"(?:, | and | because | which | so that | while | but | with | in order to | by | for )")
_IF_FIRST: Final = re.compile(r"^(If|When|Because|Once|After|Before|Although|While) ([^,]{8,}), ([^,]{8,})([.!])$")
_CONDITION: Final = re.compile(
    r"^((?:If|Unless|When|Once|Until) [^,]{6,}), (.{12,})$|^(.{12,}?),? (?:if|unless|until) .{6,}([.!])$"
)


@functools.cache
def word_lists() -> dict[str, list[str] | list[list[str]]]:
    """`data/facts.yaml`."""
    file = importlib.resources.files("visa_proxy.training") / "data" / "facts.yaml"
    lists: dict[str, list[str] | list[list[str]]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return lists


def texts(name: str, split: Split) -> list[str]:
    """A flat list of `data/facts.yaml`; every fifth entry is held out."""
    return [str(text) for i, text in enumerate(word_lists()[name]) if (i % 5 == 4) == (split == "heldout")]


def _pairs(name: str) -> list[tuple[str, str]]:
    return [(str(pair[0]), str(pair[1])) for pair in word_lists()[name]]


class Lexicon:
    """Content words of a corpus by crude kind, for swapping one against another that fits its place about as well."""

    def __init__(self, sentences: Iterable[str]) -> None:
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            words = re.findall(r"[A-Za-z][a-z]+", sentence)
            for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
                if word.islower() and len(word) > 3 and word not in _FUNCTION:
                    votes[word][_kind(before, word, after)] += 1
        self._kinds = {word: counts.most_common(1)[0][0] for word, counts in votes.items() if counts.total() >= 3}
        self._words: dict[str, list[str]] = defaultdict(list)
        for word, kind in sorted(self._kinds.items()):
            self._words[kind].append(word)

    def other(self, word: str, rng: random.Random) -> str | None:
        """Another word of the same kind, or None for a word the corpus does not know."""
        kind = self._kinds.get(word)
        choices = [w for w in self._words[kind] if w[:4] != word[:4]] if kind else []
        return rng.choice(choices) if choices else None


def _kind(before: str, word: str, after: str) -> str:
    suffix = next((s for s in ("ly", "ing", "ed", "tion", "s") if word.endswith(s)), "")
    if before.lower() in _DETERMINERS:
        return f"noun {suffix}" if not after or after in _FUNCTION else f"adjective {suffix}"
    return f"{'verb' if before.lower() in _VERB_CUES else 'word'} {suffix}"


def lower_first(sentence: str) -> str:
    """As it would stand after a lead: names, acronyms and I keep their capital as far as can be told without a
    lexicon."""
    first = re.match(r"[\w'’-]+", sentence)
    if not first or first[0] == "I" or first[0].startswith(("I'", "I’")) or any(c.isupper() for c in first[0][1:]):
        return sentence
    return sentence[0].lower() + sentence[1:]


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_tail(sentence: str, tail: str) -> str:
    """`tail` goes before the final punctuation mark."""
    body = sentence.rstrip(".!?:;")
    return f"{body}{tail}{sentence[len(body) :] or ''}"


def _replace(sentence: str, pairs: Sequence[tuple[str, str]], rng: random.Random) -> str | None:
    """One of `pairs` applied in one direction or the other where the sentence has it, case of the first letter kept."""
    options = []
    for a, b in pairs:
        for old, new in ((a, b), (b, a)):
            match = re.search(rf"\b{re.escape(old)}\b", sentence, re.IGNORECASE)
            if match:
                options.append((match, new))
    if not options:
        return None
    match, new = rng.choice(options)
    new = upper_first(new) if match[0][0].isupper() else new
    return sentence[: match.start()] + new + sentence[match.end() :]


def paraphrase(sentence: str, rng: random.Random) -> str | None:
    """A contraction, a synonym or another order of clauses; None where nothing fits."""
    turned = _IF_FIRST.match(sentence)
    if turned and rng.random() < 0.7:
        conjunction, condition, main, stop = turned.groups()
        return f"{upper_first(main)} {conjunction.lower()} {condition}{stop}"
    return _replace(sentence, _pairs("contractions") + _pairs("synonyms"), rng)


def swap_word(sentence: str, lexicon: Lexicon, rng: random.Random) -> str | None:
    """A noun, verb or adjective becomes another one."""
    matches = [m for m in re.finditer(r"\b[a-z]{4,}\b", sentence) if m[0] not in _FUNCTION]
    rng.shuffle(matches)
    for match in matches:
        if other := lexicon.other(match[0], rng):
            return sentence[: match.start()] + other + sentence[match.end() :]
    return None


def antonym(sentence: str, rng: random.Random) -> str | None:
    return _replace(sentence, _pairs("antonyms"), rng)


def quantifier(sentence: str, rng: random.Random) -> str | None:
    """Another quantifier, modal verb or temporal relation."""
    return _replace(sentence, _pairs("quantifiers"), rng)


def change_number(sentence: str, rng: random.Random) -> str | None:
    matches = list(re.finditer(r"\d+", sentence))
    if not matches:
        return None
    match = rng.choice(matches)
    number = int(match[0])
    other = rng.choice([number + rng.randint(1, 9), number * 2 + 1, max(0, number - 1) if number else 3])
    return sentence[: match.start()] + str(other) + sentence[match.end() :]


def change_name(sentence: str, names: Sequence[str], rng: random.Random) -> str | None:
    """A capitalised word inside the sentence becomes another name."""
    matches = list(re.finditer(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", sentence))
    if not matches or not names:
        return None
    match = rng.choice(matches)
    name = rng.choice([n for n in names if n != match[0]] or [""])
    return sentence[: match.start()] + name + sentence[match.end() :] if name else None


def negate(sentence: str, rng: random.Random) -> str | None:
    """A negation taken out, or else put in."""
    removed = re.sub(
        r"\b(?:not|never) |\bcan't\b|n't\b|\bcannot\b",
        lambda m: "can" if m[0] in ("can't", "cannot") else "",
        sentence,
        count=1,
    )
    if removed != sentence:
        return upper_first(re.sub(r"^[Dd]o (?=[a-z])", "", removed))
    match = _AUXILIARY.search(sentence)
    if match:
        return f"{sentence[: match.end()]} {rng.choice(['not', 'not', 'never'])}{sentence[match.end() :]}"
    if sentence.split()[0].lower() not in _FUNCTION and re.match(
        r"[A-Z][a-z]+ (?:the|a|an|your|it|in|on|to|for|with)\b", sentence
    ):
        return f"{rng.choice(['Do not', 'Never'])} {lower_first(sentence)}"
    return None


def drop_clause(sentence: str, rng: random.Random) -> str | None:
    """The sentence up to one of its commas or conjunctions."""
    words = sentence.split()
    cuts = [
        m for m in _CLAUSE.finditer(sentence) if len(sentence[: m.start()].split()) >= 3 and len(sentence[m.end() :].split()) >= 2
    ]
    return sentence[: rng.choice(cuts).start()].rstrip(",;: ") + "." if cuts and len(words) >= 7 else None


def drop_condition(sentence: str) -> str | None:
    """Without its "if …", "unless …", "until …" clause."""
    match = _CONDITION.match(sentence)
    if not match:
        return None
    return upper_first(match[2]) if match[2] else f"{match[3]}{match[4]}"


def swap_roles(sentence: str, rng: random.Random) -> str | None:
    """Two content words change places."""
    matches = [m for m in re.finditer(r"\b[a-z]{4,}\b", sentence) if m[0] not in _FUNCTION]
    pairs = [(a, b) for i, a in enumerate(matches) for b in matches[i + 1 :] if b.start() - a.end() > 3 and a[0] != b[0]]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    return sentence[: a.start()] + b[0] + sentence[a.end() : b.start()] + a[0] + sentence[b.end() :]


def garble(sentence: str, rng: random.Random) -> str | None:
    """What a small language model does wrong: a content word lost, broken or repeated."""
    matches = [m for m in re.finditer(r"\b[A-Za-z]{4,}\b", sentence) if m[0].lower() not in _FUNCTION]
    if len(matches) < 2:
        return None
    match = rng.choice(matches)
    head, word, rest = sentence[: match.start()], match[0], sentence[match.end() :]
    how = rng.choice(["lost", "broken", "broken", "repeated"])
    if how == "lost":
        return re.sub(r" +", " ", head + rest).strip()
    if how == "repeated":
        return f"{head}{word} {word}{rest}"
    spot = rng.randrange(1, len(word))
    broken = rng.choice([word[:spot] + word[spot - 1 :], word[:spot] + rng.choice("aeioutrsn") + word[spot + 1 :], word[:spot]])
    return f"{head}{broken}{rest}" if broken != word else None


def truncate(sentence: str, rng: random.Random) -> str | None:
    """The end cut off."""
    words = sentence.split()
    return " ".join(words[: max(3, int(len(words) * rng.uniform(0.3, 0.75)))]).rstrip(",;:.") + "." if len(words) >= 7 else None
