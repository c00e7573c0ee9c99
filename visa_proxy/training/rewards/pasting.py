"""Words of a value glued to an answer: "(power, wealth, status)", "Be kind and gentle.", "As a very orderly assistant: …".

Detectors add up what sentences express, so a bare word counts for them as a thought does; a reader sees the difference. What is looked for
is a piece that stands for itself, is not the original's, and has hardly anything in it but vocabulary of values, or ends in a bare list.
"""

from __future__ import annotations

import re
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.training.rewards.vocabulary import WORD, spoken, vocabulary
from visa_proxy.values import Space

SHARE: Final = 0.8
"""Of a piece's content words that are vocabulary: from here on it is no thought."""
ITEMS: Final = 3
"""A piece that lists so many bare words is no thought either, where one of them is vocabulary."""
LONGEST_ITEM: Final = 3
"""Words of an item at the end of a bare list."""
OWN: Final = 0.5
"""A piece with more than this share of its words in the original is the original's, reworded."""
_ASIDE: Final = re.compile(r"\(([^()]{3,200})\)")
_LEAD: Final = re.compile(r"\A([^.!?:\n]{3,120}):\s")
_STOP: Final = re.compile(r"(?<=[.!?…])\s+(?=[A-Z])")
"""Also behind an abbreviation: "at 5 p.m. Wealth, status." has two pieces."""
_LABEL: Final = re.compile(r"\A\w+:\s+")
_SEPARATOR: Final = re.compile(r",|;|/|\band\b|\bor\b")
_PERSONA: Final = re.compile(
    r"(?:\A|(?<=[.!?:…]\s)|(?<=\n))as an? (?:[\w'’-]+,? ){0,9}?(?:assistant|ai|model|rewriter|writer)\s*[:,]", re.IGNORECASE
)
_COMMAND: Final = re.compile(r"be [\w-]+(?:(?:,| and|, and) [\w-]+){0,3}[.!]*", re.IGNORECASE)
_PROSE: Final = frozenset(
    """a an the and or but so then if when while where which who that this these those it its you your we they their i them me he she is are
    was were be been do does did can could will would should may might must not no never to as because just also too instead however first
    please in on at by for from with without away before after until during under over within against like""".split()
)
"""Words of clauses and asides, which stand in no bare list."""
_FUNCTION: Final = frozenset(
    """a about all also an and any anything are as at be been being both but by can do does everything for forget from full had
    has have here how i if in into is it its just less let lots many more most much must my need needs no nobody none
    nor not nothing of on only or our out plenty should so some that the their them there these they think this those to
    too up us very was we what with you your""".split()
)


def pasted(original: str, rewritten: str, space: Space) -> bool:
    """Whether `rewritten` has such a piece. `space`: that of the target."""
    own = {word.casefold() for word in WORD.findall(original)}
    if len(_PERSONA.findall(rewritten)) > len(_PERSONA.findall(original)):
        return True
    for piece in _pieces(rewritten):
        if piece in original:
            continue
        if _bare(own, piece) or (_added(own, piece) and _thoughtless(piece, space)):
            return True
    return False


def _pieces(text: str) -> list[str]:
    sentences = [piece for sentence in split_sentences(text) for piece in _STOP.split(sentence)]
    asides = [aside for sentence in sentences for aside in _ASIDE.findall(sentence)]
    # One word before a colon is a way to begin ("Careful: …"), two are a list.
    leads = [lead for sentence in sentences for lead in _LEAD.findall(sentence) if len(_content(lead)) > 1]
    return [*(_ASIDE.sub(" ", sentence) for sentence in sentences), *asides, *leads]


def _added(own: set[str], piece: str) -> bool:
    content = _content(piece)
    return bool(content) and sum(word in own for word in content) <= OWN * len(content)


def _content(piece: str) -> list[str]:
    return [word for word in (found.casefold() for found in WORD.findall(piece)) if word not in _FUNCTION]


def _thoughtless(piece: str, space: Space) -> bool:
    if _COMMAND.fullmatch(piece.strip()):
        return True
    share = _share(piece, space)
    # One word of a value in a sentence around it ("What fun it is.") is how people talk; alone it is pasted.
    said = len(_content(piece)) > 1 or len(WORD.findall(piece)) == 1
    return (share >= SHARE and said) or (share > 0 and _listing(piece))


def _share(piece: str, space: Space) -> float:
    """Of vocabulary in the content words, 0 … 1."""
    said = spoken(_LABEL.sub("", piece))
    content, others = (sum(word not in _FUNCTION for word in text.split()) for text in (said, vocabulary(space).sub(" ", said)))
    return (content - others) / content if content else 0.0


def _listing(piece: str) -> bool:
    items = [WORD.findall(item) for item in _SEPARATOR.split(piece)]
    bare = [item for item in items if 0 < len(item) <= 2]
    return len(bare) >= ITEMS and len(bare) >= len([item for item in items if item]) - 1


def _bare(own: set[str], piece: str) -> bool:
    """It ends in at least `ITEMS` items, the first with anything in front of it, and no conjunction before the last: prose has one there.

    Whatever the words mean. Items with a word of the original are its own.
    """
    parts = [[word.casefold() for word in WORD.findall(part)] for part in re.split(r",\s+", piece)]
    items = parts[1 - ITEMS :]
    if len(parts) < ITEMS or not all(0 < len(item) <= LONGEST_ITEM for item in items):
        return False
    return not any(word in _PROSE or word in own for item in items for word in item)
