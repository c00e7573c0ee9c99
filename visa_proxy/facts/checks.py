"""Deterministic checks: what a rewrite must keep exactly, found with regular expressions, compared as multisets.

Kinds: number, date, url, name, code, order (the same numbers, names or sentences, exchanged), repeat (a sentence said
again), negation. Wording is normalised
first ("5" = "five", "5 %" = "five percent", "March 5, 2020" = "5 March 2020", "isn't" = "is not"), so that only
substance counts.

Not covered: "zero", "one", "first", "second" and "half" as number words (framings say "one option", "first and
foremost"), names in scripts without capitals, a lone name that only ever opens a sentence, negation by prefix
("unsafe"); the entailment head sees those.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.facts.negation import negates, negation_changes
from visa_proxy.facts.opposites import opposite_changes

_CODE: Final = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?^[ \t]*(?P=fence)[ \t]*$|.*\Z)"
    r"|(?P<ticks>`+)(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)",
    re.MULTILINE | re.DOTALL,
)
_URL: Final = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_MONTHS: Final = "january february march april may june july august september october november december".split()
_MONTH: Final = (
    r"(?P<{0}>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DATE: Final = re.compile(
    rf"\b(?P<d1>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH.format('m1')}(?:,? (?P<y1>\d{{4}}))?\b"
    rf"|\b{_MONTH.format('m2')} (?P<d2>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\d)(?:,? (?P<y2>\d{{4}})\b)?"
    rf"|\b{_MONTH.format('m3')},? (?P<y3>\d{{4}})\b"
    r"|\b(?P<y4>\d{4})-(?P<m4>0[1-9]|1[0-2])-(?P<d4>[0-3]\d)\b"
    r"|\b(?P<weekday>(?i:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)s?\b"
)
_UNITS: Final = {
    word: value
    for value, word in enumerate(
        """_ _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen""".split()
    )
    if word != "_"
}
_TENS: Final = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALES: Final = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "trillion": 10**12}
_ORDINALS: Final = {
    word: value for value, word in enumerate("fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 4)
} | {"third": 3}
_NUMBER_WORD: Final = "|".join(sorted([*_UNITS, *_TENS, *_SCALES], key=len, reverse=True))
_CURRENCY: Final = {
    "$": "usd",
    "€": "eur",
    "£": "gbp",
    "¥": "jpy",
    "dollar": "usd",
    "euro": "eur",
    "pound": "gbp",
    "yen": "jpy",
}
_UNIT: Final = r"(?:[ -]?(?P<percent>%|percent\b|per cent\b)| (?P<money>dollars?|euros?|yen)\b)?"
_NUMBER: Final = re.compile(
    r"(?P<symbol>[$€£¥])?"
    r"(?P<digits>(?<![\w.,])[-−]?\d+(?:,\d{3})+(?:\.\d+)?|(?<![\w.])[-−]?\d+(?:\.\d+)?|(?<=\d[-–:/x])\d+|\d+(?:\.\d+)?)"
    r"(?:(?P<ordinal>st|nd|rd|th)\b)?(?: (?P<scale>hundred|thousand|million|billion|trillion)\b)?"
    + _UNIT
    + r"|\b(?P<words>(?:one (?=hundred|thousand|million|billion))?"
    + rf"(?:{_NUMBER_WORD})(?:(?:[ -]| and )(?:{_NUMBER_WORD}|one))*)\b"
    + _UNIT.replace("percent>", "percent2>").replace("money>", "money2>")
    + rf"|\b(?P<ordinals>{'|'.join(_ORDINALS)})\b(?! party| parties)",
    re.IGNORECASE,
)
_MARKER: Final = re.compile(r"^[ \t]*(?:[-*•+>] |#{1,6} |\d{1,3}[.)] )", re.MULTILINE)
_WORD: Final = re.compile(r"[^\W\d_](?:[\w'’&-]*\w)?")
_EDGES: Final = re.compile(r"^[\s\"“”*_(]+|[\s.!:;,\"“”*_)]+$")
_FUNCTION: Final = frozenset(
    """a an the this that these those it its he she they we you i my your our their his her him them us me in on at by
    for from with to of as if when while and or but so than then also is are was were be been being am do does did
    have has had can could should would will may might must not no never none nothing nobody neither nor without there
    here what how why who which where into out up down over under about more most some any all each other one such
    just very only too many much few own same both because since until before after yes let get make""".split()
)


@dataclass(frozen=True)
class Fact:
    """Something a rewrite must keep."""

    kind: str
    text: str
    """Normalised: two texts that say the same have the same facts."""
    context: frozenset[str]
    """The words next to it, to tell exchanged facts from reordered clauses."""


def differences(original: str, rewritten: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(lost, gained) as `kind:text`, sorted. Both empty when the rewrite keeps every checked fact and adds none."""
    if original == rewritten:
        return (), ()
    first, second = facts(original), facts(rewritten)
    # A name counts once: splitting a sentence may repeat it, a pronoun may stand for the second mention.
    one, two = (Counter({(f.kind, f.text) for f in s if f.kind == "name"}) for s in (first, second))
    one += Counter((f.kind, f.text) for f in first if f.kind != "name")
    two += Counter((f.kind, f.text) for f in second if f.kind != "name")
    _forgive_openers(one, two, original, rewritten)
    lost, gained = list((one - two).elements()), list((two - one).elements())
    if not lost and not gained:
        lost += [("order", text) for text in _exchanged(first, second)]
    sentences = split_sentences(original), split_sentences(rewritten)
    moved, repeated = _rearranged(*sentences)
    lost += [("order", text) for text in moved]
    gained += [("repeat", text) for text in repeated]
    dropped, inserted = negation_changes(*sentences)
    lost += [("negation", text) for text in dropped]
    gained += [("negation", text) for text in inserted]
    dropped, inserted = opposite_changes(*sentences)
    lost += [("opposite", text) for text in dropped]
    gained += [("opposite", text) for text in inserted]
    return _rendered(lost), _rendered(gained)


def told(sentence: str, found: Sequence[str]) -> tuple[str, ...]:
    """Those of `found`, as `differences` gives them, that stand in `sentence`."""
    if not found:
        return ()
    own = {f"{fact.kind}:{fact.text}" for fact in facts(sentence)}

    def stands(each: str) -> bool:
        kind, _, text = each.partition(":")
        if kind == "negation":
            return negates(sentence, text)
        word = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)
        # A number or a date is written in many ways: `own` has its normal form.
        return each in own or (kind not in ("number", "date") and bool(word.search(sentence)))

    return tuple(each for each in found if stands(each))


def _rearranged(original: Sequence[str], rewritten: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sentences both texts hold: those that changed places (steps in another order say something else), and those said again."""
    first, second = ([sentence_key(sentence) for sentence in text] for text in (original, rewritten))
    once, again = Counter(first), Counter(second)
    repeated = [key for key in once if again[key] > once[key]]
    shared = once & again
    one, two = ([key for key in keys if shared[key] and key not in repeated] for keys in (first, second))
    moved = [key for key, other in zip(one, two, strict=False) if key != other][:1] if Counter(one) == Counter(two) else []
    return moved, repeated


def sentence_key(sentence: str) -> str:
    """A sentence without white space, case and outer punctuation: what two texts have in common has one key."""
    return _EDGES.sub("", " ".join(sentence.casefold().split()))


def _rendered(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(f"{kind}:{text}" for kind, text in found))


def _forgive_openers(one: Counter[tuple[str, str]], two: Counter[tuple[str, str]], original: str, rewritten: str) -> None:
    """A name inside a sentence here may open one there, where its capital tells nothing: any capitalised form will
    do."""
    for mine, others, text in ((one, two, rewritten), (two, one, original)):
        for fact in [f for f in mine if f[0] == "name" and f not in others]:
            if re.search(rf"(?<!\w){re.escape(fact[1])}(?!\w)", text):
                del mine[fact]


def facts(text: str) -> list[Fact]:
    """Every checked fact of `text` in order of appearance; negations apart, which need both texts."""
    found: list[tuple[int, Fact]] = []

    def take(pattern: re.Pattern[str], kind: str, text: str) -> str:
        for match in pattern.finditer(text):
            value = _value(kind, match)
            if value:
                found.append((match.start(), Fact(kind, value, _around(text, match.start(), match.end()))))
        return pattern.sub(lambda match: "¤" * len(match[0]), text)  # a word after it does not open a sentence

    rest = take(_CODE, "code", text)
    rest = take(_URL, "url", rest)
    rest = _MARKER.sub(lambda match: " " * len(match[0]), rest)
    rest = take(_DATE, "date", rest)
    rest = take(_NUMBER, "number", rest)
    for start, end in _names(rest):
        found.append((start, Fact("name", rest[start:end], _around(rest, start, end))))
    return [fact for _, fact in sorted(found, key=lambda entry: entry[0])]


def _value(kind: str, match: re.Match[str]) -> str:
    if kind == "number":
        return _number(match)
    if kind == "date":
        return _date(match)
    return match[0].strip()


def _number(match: re.Match[str]) -> str:
    group = match.groupdict()
    if group["ordinals"]:
        return f"{_ORDINALS[group['ordinals'].lower()]}th"
    if group["words"]:
        value = _spelled(group["words"])
        if value is None:
            return ""
    else:
        value = float(group["digits"].replace(",", "").replace("−", "-"))
        value *= _SCALES[group["scale"].lower()] if group["scale"] else 1
    money = group["symbol"] or (group["money"] or group["money2"] or "").lower().rstrip("s")
    suffix = "th" if group["ordinal"] else "%" if group["percent"] or group["percent2"] else _CURRENCY.get(money, "")
    return f"{value:.12g}{suffix}"


def _spelled(words: str) -> float | None:
    """ "two hundred and five" -> 205; None for a bare "hundred", "million" ("one in a million")."""
    total, current = 0.0, 0.0
    parts = re.findall(r"[a-z]+", words.lower())
    if all(part in _SCALES for part in parts):
        return None
    for part in parts:
        if part in _SCALES:
            scale = _SCALES[part]
            current = max(current, 1) * scale
            if scale > 100:
                total, current = total + current, 0
        elif part != "and":
            current += 1 if part == "one" else _UNITS.get(part, 0) or _TENS.get(part, 0)
    return total + current


def _date(match: re.Match[str]) -> str:
    group = match.groupdict()
    if group["weekday"]:
        return group["weekday"].lower()
    pick = next(i for i in "1234" if group.get(f"m{i}"))
    name = group[f"m{pick}"]
    month = int(name) if name.isdigit() else next(n for n, m in enumerate(_MONTHS, 1) if m.startswith(name[:3].lower()))
    return f"{group.get(f'y{pick}') or '?'}-{month:02d}-{int(group.get(f'd{pick}') or 0):02d}"


def _names(text: str) -> Iterable[tuple[int, int]]:
    """Capitalised words inside a sentence, acronyms and camel case anywhere; each word for itself."""
    for match in _WORD.finditer(text):
        word = match[0]
        if word in ("I", "I'm", "I've", "I'd", "I'll", "I’m", "I’ve", "I’d", "I’ll") or (
            word.isupper() and len(word) > 1 and _shouts(text)
        ):
            continue
        odd = any(letter.isupper() for letter in re.split(r"[-'’]", word)[0][1:])
        if odd or (word[0].isupper() and not _opens(text, match.start())):
            end = match.end() - 2 if word.endswith(("'s", "’s")) else match.end()
            yield match.start(), end


def _shouts(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return sum(c.isupper() for c in letters) > 0.5 * len(letters)


def _opens(text: str, position: int) -> bool:
    """At the start of a line, sentence, quotation, parenthesis or after a colon."""
    head = text[max(0, position - 16) : position]
    return position == 0 or bool(re.search(r"(?:^|\n|[.!?…:;|“\"(\[*_#>]|[—–-] )[\s\"“”’'()*_#>\[-]*\Z", head))


def _around(text: str, start: int, end: int) -> frozenset[str]:
    before = re.findall(r"[^\W\d_]{2,}", text[max(0, start - 40) : start])[-1:]
    after = re.findall(r"[^\W\d_]{2,}", text[end : end + 40])[:1]
    return frozenset(f"<{w.lower()}" for w in before) | frozenset(f">{w.lower()}" for w in after)


def _exchanged(first: Sequence[Fact], second: Sequence[Fact]) -> list[str]:
    """Numbers and names that stand in another order, next to other words: "2 cups, 3 eggs" -> "3 cups, 2 eggs"."""
    found: list[str] = []
    for kind in ("number", "name"):
        one, two = [f for f in first if f.kind == kind], [f for f in second if f.kind == kind]
        if len(one) == len(two) and [f.text for f in one] != [f.text for f in two]:
            found += [a.text for a in one if not any(a.text == b.text and a.context & b.context for b in two)]
    return found if len(found) > 1 else []


def content_stems(sentence: str) -> frozenset[str]:
    """Its content words, lower-cased and cut to six letters: enough to see what two sentences share."""
    return frozenset(w[:6] for w in re.findall(r"[^\W_]+", sentence.casefold()) if w not in _FUNCTION)
