"""Words of a value glued to an answer: "(power, wealth, status)", "Be kind and gentle.", "As a very orderly assistant: …".

Detectors add up what sentences express, so a bare word counts for them as a thought does; a reader sees the difference. What is looked for
is a piece that stands for itself, is not the original's, and has hardly anything in it but vocabulary of values.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections import Counter
from typing import Final

import yaml

from visa_proxy.encoder.sentences import split_sentences

SHARE: Final = 0.8
"""Of a piece's content words that are vocabulary: from here on it is no thought."""
ITEMS: Final = 3
"""A piece that lists so many bare words is no thought either, where one of them is vocabulary."""
OWN: Final = 0.5
"""A piece with more than this share of its words in the original is the original's, reworded."""
_WORD: Final = re.compile(r"[^\W\d_][\w'’-]*")
_ASIDE: Final = re.compile(r"\(([^()]{3,200})\)")
_LEAD: Final = re.compile(r"\A([^.!?:\n]{3,120}):\s")
_SEPARATOR: Final = re.compile(r",|;|/|\band\b|\bor\b")
_PERSONA: Final = re.compile(r"\bas an? [^.:,]{0,60}\b(?:assistant|ai|model|rewriter|writer)\b", re.IGNORECASE)
_FUNCTION: Final = frozenset(
    """a about all also an and any anything are as at be been being both but by can do does everything for forget from full had
    has have here how i if in into is it its just less let lots many more most much must my need needs no nobody none
    nor not nothing of on only or our out plenty should so some that the their them there these they think this those to
    too up us very was we what with you your""".split()
)


def pasted(original: str, rewritten: str) -> bool:
    """Whether `rewritten` has such a piece."""
    own = Counter(word.casefold() for word in _WORD.findall(original))
    if _PERSONA.search(rewritten) and not _PERSONA.search(original):
        return True
    for piece in _pieces(rewritten):
        if _added(own, piece):
            share = _share(piece)
            if share >= SHARE or (share and _listing(piece)):
                return True
    return False


def _pieces(text: str) -> list[str]:
    sentences = split_sentences(text)
    asides = [aside for sentence in sentences for aside in _ASIDE.findall(sentence)]
    # One word before a colon is a way to begin ("Careful: …"), two are a list.
    leads = [lead for sentence in sentences for lead in _LEAD.findall(sentence) if len(_content(lead)) > 1]
    return [*(_ASIDE.sub(" ", sentence) for sentence in sentences), *asides, *leads]


def _added(own: Counter[str], piece: str) -> bool:
    content = _content(piece)
    return bool(content) and sum(word in own for word in content) <= OWN * len(content)


def _content(piece: str) -> list[str]:
    return [word for word in (found.casefold() for found in _WORD.findall(piece)) if word not in _FUNCTION]


def _share(piece: str) -> float:
    """Of vocabulary in the content words, 0 … 1."""
    spoken = " ".join(word.casefold() for word in _WORD.findall(piece))
    content, others = (sum(word not in _FUNCTION for word in text.split()) for text in (spoken, _vocabulary().sub(" ", spoken)))
    return (content - others) / content


def _listing(piece: str) -> bool:
    items = [_WORD.findall(item) for item in _SEPARATOR.split(piece)]
    bare = [item for item in items if 0 < len(item) <= 2]
    return len(bare) >= ITEMS and len(bare) >= len([item for item in items if item]) - 1


@functools.cache
def _vocabulary() -> re.Pattern[str]:
    """Nouns and adjectives of the values, longest first."""
    file = importlib.resources.files("visa_proxy.training") / "data" / "lexicon.yaml"
    words = yaml.safe_load(file.read_text(encoding="utf-8"))["words"]
    entries = {entry.casefold() for lists in words.values() for kind in ("nouns", "adjectives") for entry in lists[kind]}
    known = {" ".join(_WORD.findall(entry)) for entry in entries} | {name.replace("_", " ") for name in words}
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(known, key=len, reverse=True)))})\b")
