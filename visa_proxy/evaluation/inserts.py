"""Sentences with something to preserve, put into answers: a number, a URL, a code span, a quoted name.

They say nothing of any value. `{topic}` is the answer's topic, `{Title}` the same with capitals, `{slug}` with underscores; `{n}` is a
number.
"""

from __future__ import annotations

from typing import Final

INSERTS: Final[dict[str, tuple[str, ...]]] = {
    "number": (
        "The library's leaflet on {topic} has {n} pages.",
        "The survey on {topic} had {n} respondents.",
        "There are {n} entries under {topic} in the catalogue.",
        "The chapter on {topic} begins on page {n}.",
    ),
    "url": (
        "The current overview of {topic} is at https://www.example.org/{slug}.",
        "A page with the dates is at https://example.com/{slug}/{n}, and it is updated monthly.",
        "The form is at https://forms.example.net/{slug}?v={n}.",
        "Opening hours are listed at https://info.example.org/{slug}/contact.",
    ),
    "code": (
        "In the online form the field for this is called `{slug}`.",
        "In the shared folder the file is named `{slug}_{n}.pdf`.",
        "The search field takes the keyword `{slug}` as well.",
        "In the spreadsheet the column is `{slug}_{n}`.",
    ),
    "name": (
        'A longer account is in the booklet "{Title} Explained".',
        'The folder on the shelf is labelled "{Title} and More".',
        'The series is called "Notes on {Title}".',
        'The talk was announced as "{Title}, Part Two".',
    ),
}
"""Kind to templates."""


def sentence(kind: str, topic: str, draw: int) -> str:
    """The sentence of `kind` that `draw`, any whole number ≥ 0, picks."""
    templates = INSERTS[kind]
    words = {"topic": topic, "Title": topic.title(), "slug": "_".join(topic.lower().split()), "n": str(11 + draw % 977)}
    return templates[draw % len(templates)].format(**words)
