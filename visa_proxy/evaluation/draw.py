"""The frozen cases, drawn from answers with labelled values: which answers, which Δv, which get something to preserve.

Every draw is a hash of the seed and of what it is for, so that the file is the same to the byte whatever the version of anything.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.evaluation.cases import Case, space
from visa_proxy.evaluation.inserts import INSERTS, sentence
from visa_proxy.training.annotated import Annotated, bundled, parts
from visa_proxy.values import ValueVector

COUNT: Final = 300
KINDS: Final = ("neutral", "plain", "words")
"""Of the annotated corpus: answers that a base model might give, and ones that name values without expressing them."""
INSERT_EVERY: Final = 5
LONGEST_OFFSET: Final = 3
Step = tuple[str, int]
"""A value, and the sign of its change."""


def drawn(seed: int = 0) -> list[Case]:
    """The cases that come with the package: from the held-out topics of the annotated corpus. No judge has a say in their targets."""
    return draw_cases(parts(bundled(space()))["test"], seed)


def draw_cases(rows: Iterable[Annotated], seed: int = 0, count: int = COUNT) -> list[Case]:
    """`count` cases, or as many as there are rows of `KINDS`.

    Topics and kinds take turns. Δv moves one, two or three values by a half or a whole step, never towards where the answer
    is already, and |Δv| > 0.75, so that who leaves the answer alone does not meet the target. The changes asked for least so far come next.
    """
    chosen = _chosen([row for row in rows if row.kind in KINDS], seed)[:count]
    asked: Counter[Step] = Counter()
    return [_case(row, number, seed, asked) for number, row in enumerate(chosen)]


def _hash(seed: int, *about: object) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, (seed, *about))).encode()).digest()[:8], "big")


def _chosen(rows: Sequence[Annotated], seed: int) -> list[Annotated]:
    """In turns of one answer for each topic and kind; within a turn, and within topic and kind, by hash."""
    ranked: list[tuple[int, int, Annotated]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for place, row in sorted(((_hash(seed, "pick", s.query, s.answer), s) for s in rows), key=lambda pair: pair[0]):
        turn = seen[row.topic, row.kind]
        seen[row.topic, row.kind] += 1
        ranked.append((turn, place, row))
    return [row for _, _, row in sorted(ranked, key=lambda each: each[:2])]


def _case(row: Annotated, number: int, seed: int, asked: Counter[Step]) -> Case:
    size = 1 + number % LONGEST_OFFSET
    target, offset = _target(row, number, size, seed, asked)
    case = Case(f"case-{number + 1:03}", row.topic, row.query, row.answer, target, offset)
    if number % INSERT_EVERY:
        return case
    return replace(case, answer=_inserted(row, list(INSERTS)[number // INSERT_EVERY % len(INSERTS)], number, seed))


def _target(row: Annotated, number: int, size: int, seed: int, asked: Counter[Step]) -> tuple[ValueVector, dict[str, float]]:
    """v* = clip(v + Δv), and Δv; counts in `asked` what it takes."""
    before = ValueVector(space(), row.values)
    steps: list[Step] = [
        (name, sign)
        for name in before.space.names
        for sign in (-1, 1)
        if before[name] * sign <= 0  # a whole step fits
    ]
    steps.sort(key=lambda step: (asked[step], _hash(seed, "step", number, step)))
    while True:
        picked: dict[str, int] = {}
        for name, sign in steps:
            if len(picked) < size and name not in picked:
                picked[name] = sign
        offset = _sized(picked, number, seed)
        target = before.offset(ValueVector.of(before.space, offset))
        if target.norm:
            break
        steps.remove((name := next(iter(picked)), picked[name]))  # Δv takes back just what the answer says: another first value
    asked.update(picked.items())
    return target, offset


def _sized(picked: dict[str, int], number: int, seed: int) -> dict[str, float]:
    """Half or whole steps; of one or two values at least one is whole."""
    sizes = [0.5 + 0.5 * (_hash(seed, "size", number, name) % 2) for name in picked]
    if len(sizes) < LONGEST_OFFSET and 1.0 not in sizes:
        sizes[_hash(seed, "whole", number) % len(sizes)] = 1.0
    return {name: sign * size for (name, sign), size in zip(picked.items(), sizes, strict=True)}


def _inserted(row: Annotated, kind: str, number: int, seed: int) -> str:
    """The answer with one more sentence, behind any of its own."""
    parts = split_sentences(row.answer)
    after = parts[_hash(seed, "where", number) % len(parts)]
    end = row.answer.index(after) + len(after)
    added = sentence(kind, row.topic, _hash(seed, "insert", number))
    return f"{row.answer[:end]} {added}{row.answer[end:]}"
