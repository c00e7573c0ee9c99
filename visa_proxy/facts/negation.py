"""Negations gained or lost: a negator counts when what it negates is in both versions.

Framings hold harmless ones ("without fuss", "nothing to fear"): their neighbours are new as well. So each sentence is
compared with the one most like it, word by word, and a negator in one version only counts if the content word it
governs is in the other, in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[.,;:!?()—–]")
_NOT: Final = "¬"
_NEGATORS: Final = frozenset("not never no without none nobody nothing neither nor nowhere hardly scarcely barely".split())
_IRREGULAR: Final = {
    "cannot": ["can", _NOT],
    "can't": ["can", _NOT],
    "won't": ["will", _NOT],
    "shan't": ["shall", _NOT],
    "ain't": ["is", _NOT],
}
_PASS: Final = frozenset(
    """a an the this that these those it its to of in on at by for from with as be been being is are was were am do
    does did have has had can could should would will may might must i you he she we they any every all some your my
    our his her their them and or ever even really just very so too also""".split()
)
_CLAUSE_END: Final = frozenset(".,;:!?()—–")
_SIMILAR: Final = 0.5


def negation_changes(original: Sequence[str], rewritten: Sequence[str]) -> tuple[list[str], list[str]]:
    """(lost, gained): the words whose negation the rewrite drops or adds, with the negation mark ¬."""
    one, two = [_tokens(s) for s in original], [_tokens(s) for s in rewritten]
    if not any(_NOT in tokens for tokens in [*one, *two]):
        return [], []
    lost = [word for a, b in _aligned(one, two) for word in _attached(a, b)]
    gained = [word for b, a in _aligned(two, one) for word in _attached(b, a)]
    return lost, gained


def negates(sentence: str, change: str) -> bool:
    """Whether the negated word of `change`, as `negation_changes` gives it, stands in `sentence` beside a negator."""
    tokens = _tokens(sentence)
    return _NOT in tokens and change.removeprefix(_NOT) in tokens


def _tokens(sentence: str) -> list[str]:
    """Lower-cased words and punctuation marks; every negator is ¬, "don't" is "do ¬", "not only" is none."""
    text = re.sub(
        r"\bnot only\b|\bno matter\b|\bno longer than\b|\bwhy not\b|\bif not\b|\bno doubt\b",
        "only",
        sentence.casefold().replace("’", "'"),
    )
    tokens: list[str] = []
    for word in _TOKEN.findall(text):
        if word in _IRREGULAR:
            tokens += _IRREGULAR[word]
        elif word.endswith("n't"):
            tokens += [word[:-3], _NOT]
        else:
            tokens.append(_NOT if word in _NEGATORS else word)
    return tokens


def _aligned(sentences: Sequence[list[str]], others: Sequence[list[str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Each sentence with a negator, and the other version's most similar one, unless that holds it unchanged or none
    is similar."""
    bags = [frozenset(other) - _PASS - _CLAUSE_END - {_NOT} for other in others]
    for tokens in sentences:
        bag = frozenset(tokens) - _PASS - _CLAUSE_END - {_NOT}
        if _NOT not in tokens or not bag or tokens in others:
            continue
        shared = [len(bag & other) / min(len(bag), len(other)) if other else 0.0 for other in bags]
        best = max(range(len(others)), key=lambda i: (shared[i], len(bag & bags[i])), default=None)
        # One word in common is chance, unless there are hardly more.
        if best is not None and shared[best] >= _SIMILAR and (len(bag) <= 2 or len(bag & bags[best]) >= 2):
            yield tokens, others[best]


def _attached(tokens: list[str], other: list[str]) -> Iterator[str]:
    """The governed words of those negators of `tokens` that `other` lacks at that place."""
    blocks = SequenceMatcher(None, tokens, other, autojunk=False).get_matching_blocks()
    matched: dict[int, tuple[int, int, int]] = {}
    for start, there, size in blocks:
        matched.update(dict.fromkeys(range(start, start + size), (start, there, size)))
    for position, token in enumerate(tokens):
        if token != _NOT or position in matched:
            continue
        target = _governed(tokens, position)
        if target is None or target not in matched:
            continue
        start, there, size = matched[target]
        before = next((i for i in range(position - 1, -1, -1) if i in matched), -1)
        inserted = target - before - 1
        close = size >= 2 or inserted <= 3
        if close and _NOT not in other[max(0, there + target - start - 3) : there + target - start]:
            yield f"{_NOT}{tokens[target]}"


def _governed(tokens: list[str], position: int) -> int | None:
    """The next content word of the clause, at most five words on; else the word before ("it probably is not")."""
    for i in range(position + 1, min(position + 6, len(tokens))):
        if tokens[i] in _CLAUSE_END:
            break
        if tokens[i] not in _PASS and tokens[i] != _NOT:
            return i
    return position - 1 if position and tokens[position - 1] not in _CLAUSE_END else None
