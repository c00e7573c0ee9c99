"""Verbatim spans: what a rewrite may not touch travels as a placeholder and comes back byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, get_args

from visa_proxy.policy.schema import Preserve
from visa_proxy.shield.markdown import BRACKET_MATHS, DISPLAY_MATHS, DOLLAR_MATHS, FENCED, INLINE_CODE, QUOTE, TABLE

KINDS: Final[tuple[Preserve, ...]] = get_args(Preserve)

PLACEHOLDER: Final = re.compile(r"⟦(\d{1,7})⟧")

_CODE = re.compile("|".join((FENCED, INLINE_CODE, DISPLAY_MATHS, BRACKET_MATHS, DOLLAR_MATHS)), re.MULTILINE | re.DOTALL)
_URL = re.compile(
    r"""(?:https?://|www\.)(?:[^\s<>"'()\[\]]|\([^\s<>"'()]*\)|\[[^\s<>"'\[\]]*\])*"""  # brackets in pairs only
    r"""(?:[^\s<>"'()\[\].,;:!?]|\([^\s<>"'()]*\))"""
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"  # e-mail; 64: RFC 5321, and it bounds the search
)
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
_NUMBER = re.compile(
    r"^[ \t]*\d{1,3}[.)](?=[ \t])"  # list marker
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"  # ISO 8601
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}\b(?:,? \d{{4}})?"
    rf"|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}})?"
    r"|(?<![\w⟦])[-+±~]?[$€£¥]?\d[\d.,:/]*(?<![.,:/])(?:\d|%|°[CF]?|st\b|nd\b|rd\b|th\b|(?:x|k|m|bn|[kKMGT]?B|km|kg|cm|mm|ml|g|h|s)\b)?"
    r"(?:[ ]?[-–][ ]?[$€£¥]?\d[\d.,:/]*(?<![.,:/])%?)*(?: ?(?:[ap]\.?m\b\.?|AM\b|PM\b|%))?",
    re.MULTILINE,
)
_WORD = re.compile(r"[^\W\d_][\w'’&-]*", re.UNICODE)
_SENTENCE_START = re.compile(r"(?:^|[.!?:\n*#>|\"“(][\s\"“'(*_#-]*|^\s*[-*•][ \t]+)\Z", re.MULTILINE)
_STARTERS: Final = frozenset(
    """a an the this that these those it its he she they we you i my your our their his her in on at by for from with without to of as
    if when while before after during once since until because although though and or but so then also most many some any all each
    every both few one two three no not there here what how why who where which do does did can could should would will may might
    must let use try start stop make keep take set add ask avoid begin break bring build buy call check choose clean click close
    compare consider contact cook count create cut decide define drink eat explain find follow get give go have help import install
    keep learn leave list look measure move note open pack pay pick plan put read remember remove replace review run save say see
    send set share show speak store store talk tell test think track travel turn type update visit wait walk watch wear work write
    yes however instead finally first second third next last today another other between under over into more less only even""".split()
)


@dataclass(frozen=True)
class Protected:
    """A text whose verbatim spans are placeholders ⟦1⟧, ⟦2⟧, … in order of appearance."""

    text: str
    spans: tuple[str, ...]

    def intact(self, rewritten: str) -> bool:
        """Every placeholder exactly once, in the original order, and no stray bracket."""
        found = [int(number) for number in PLACEHOLDER.findall(rewritten)]
        brackets = rewritten.count("⟦") + rewritten.count("⟧")
        return found == list(range(1, len(self.spans) + 1)) and brackets == 2 * len(self.spans)

    def restore(self, rewritten: str) -> str:
        """Put the spans back. Raises ValueError unless `intact(rewritten)`."""
        if not self.intact(rewritten):
            raise ValueError("placeholders are not intact")
        return PLACEHOLDER.sub(lambda match: self.spans[int(match[1]) - 1], rewritten)


def protect(text: str, kinds: Iterable[Preserve] = KINDS, glossary: Iterable[str] = ()) -> Protected:
    """Replace the spans of `kinds` and every glossary term by placeholders.

    Fences, tables and maths go with "code". Spans that overlap become one. Brackets ⟦ ⟧ that the text itself holds are always
    spans, so `restore` gives back exactly what came in.
    """
    pieces: list[str] = []
    spans: list[str] = []
    position = 0
    for start, end in _merged(_candidates(text, frozenset(kinds), tuple(glossary))):
        spans.append(text[start:end])
        pieces += [text[position:start], f"⟦{len(spans)}⟧"]
        position = end
    pieces.append(text[position:])
    return Protected("".join(pieces), tuple(spans))


def _merged(candidates: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted and disjoint: a quotation with a link in it is protected as a whole."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(candidates):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif end > start:
            merged.append((start, end))
    return merged


def _candidates(text: str, kinds: frozenset[Preserve], glossary: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    if "code" in kinds:
        for pattern in (_CODE, TABLE):
            yield from (_trimmed(text, *match.span()) for match in pattern.finditer(text))
    for term in glossary:
        yield from (match.span() for match in re.finditer(re.escape(term), text))
    if "urls" in kinds:
        yield from (match.span() for match in _URL.finditer(text))
    if "quotes" in kinds:
        yield from (match.span() for match in QUOTE.finditer(text))
    if "numbers" in kinds:
        yield from (_trimmed(text, *match.span()) for match in _NUMBER.finditer(text))
    if "names" in kinds:
        yield from name_spans(text)
    yield from (match.span() for match in re.finditer("[⟦⟧]", text))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without white space at either end: it stays visible to the rewriter as layout."""
    span = text[start:end]
    return start + len(span) - len(span.lstrip()), end - (len(span) - len(span.rstrip()))


def name_spans(text: str) -> Iterator[tuple[int, int]]:
    """Proper names by their capitals: runs of capitalised words, acronyms, camel case.

    A capitalised word that opens a sentence counts only as part of a run and when it is no common opener ("Use Python": Python;
    "New York": both). There is no lexicon here: a lone name that opens a sentence is missed unless it stands elsewhere too.
    """
    words = list(_WORD.finditer(text))
    inside = {w[0] for w in words if _capital(w[0]) and not _opens(text, w.start())}
    run: list[re.Match[str]] = []
    for word in words:
        if run and (text[run[-1].end() : word.start()] != " " or not _capital(word[0])):
            yield from _name(text, run, inside)
            run = []
        if _capital(word[0]):
            run.append(word)
    yield from _name(text, run, inside)


def _name(text: str, run: list[re.Match[str]], inside: set[str]) -> Iterator[tuple[int, int]]:
    if run and _opens(text, run[0].start()) and not _odd_case(run[0][0]):
        lone = len(run) == 1 and run[0][0] not in inside
        if lone or run[0][0].lower() in _STARTERS:
            run = run[1:]
    run = [word for word in run if word[0] not in ("I", "I'm", "I've", "I'd", "I'll")] if len(run) == 1 else run
    if run:
        yield run[0].start(), run[-1].end()


def _capital(word: str) -> bool:
    return word[0].isupper() or _odd_case(word)


def _odd_case(word: str) -> bool:
    """Acronyms and camel case: capitals after the first letter (NASA, iPhone, GitHub)."""
    return any(letter.isupper() for letter in word[1:])


def _opens(text: str, position: int) -> bool:
    return bool(_SENTENCE_START.search(text[max(0, position - 12) : position] if position else ""))
