"""Rewrites written by hand, faithful and not: `data/facts/*.jsonl`. Whole topics are held out.

A row holds an answer (`original`), two versions that say the same (`faithful`) and four that do not (`unfaithful`), each with its kind.
What is labelled is a whole rewrite; which of its sentences is at fault the model has to find.
"""

from __future__ import annotations

from dataclasses import dataclass

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.facts.alignment import questions
from visa_proxy.training import jsonl
from visa_proxy.training.labelled import Part, part_of

Alternatives = tuple[tuple[tuple[str, ...], str], ...]
"""(premise sentences, hypothesis): the same hypothesis with each premise it may follow from."""


@dataclass(frozen=True)
class Claim:
    """Does every sentence follow from at least one of its premises?"""

    sentences: tuple[Alternatives, ...]
    label: int
    """1 all of them do, 0 at least one does not."""
    weight: float
    kind: str


@dataclass(frozen=True)
class Rewrite:
    """A version of an answer."""

    topic: str
    original: str
    text: str
    kind: str
    faithful: bool


def rewrites(part: Part) -> list[Rewrite]:
    """Those of the topics of `part`."""
    return [
        Rewrite(row["topic"], row["original"], version["text"], version["kind"], key == "faithful")
        for row in jsonl.records(*jsonl.bundled("facts"))
        if part_of(f"topic {row['topic']}") == part
        for key in ("faithful", "unfaithful")
        for version in row[key]
    ]


def written_claims(part: Part, weight: float) -> list[Claim]:
    """Each rewrite as one claim, both ways; sentences that both versions hold are left out, as in serving."""
    claims: list[Claim] = []
    for each in rewrites(part):
        first, second = split_sentences(each.original), split_sentences(each.text)
        asked = [*questions(first, second), *questions(second, first)]
        if asked:
            sentences = tuple(tuple((premise, q.hypothesis) for premise in q.premises) for q in asked)
            claims.append(Claim(sentences, int(each.faithful), weight, each.kind))
    return claims
