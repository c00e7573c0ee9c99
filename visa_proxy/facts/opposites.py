"""A word that became its opposite, where all around it stayed: "rinse it in cold water", "rinse it in hot water"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PAIRS: Final = """
hot cold|warm cool|hotter colder|warmer cooler|high low|higher lower|highest lowest|more less|more fewer|most least|maximum minimum
before after|earlier later|early late|first last|above below|over under|inside outside|indoors outdoors|upper lower|left right|front back
top bottom|north south|east west|up down|upwards downwards|open closed|open shut|opens closes|on off|full empty|long short|longer shorter
longest shortest|large small|larger smaller|largest smallest|big little|bigger smaller|wide narrow|wider narrower|thick thin|thicker thinner
heavy light|heavier lighter|fast slow|faster slower|quickly slowly|strong weak|stronger weaker|hard soft|harder softer|wet dry|damp dry
dark bright|darker brighter|young old|younger older|new old|cheap expensive|cheaper dearer|rich poor|same different|safe dangerous
safe unsafe|legal illegal|possible impossible|allowed forbidden|required optional|mandatory optional|true false|right wrong|correct incorrect
increase decrease|increases decreases|increased decreased|raise lower|raises lowers|raised lowered|rise fall|rises falls|gain lose|gains loses
add remove|adds removes|start stop|starts stops|begin end|begins ends|buy sell|buys sells|lend borrow|push pull|win lose|wins loses
accept refuse|accepts refuses|include exclude|includes excludes|included excluded|with without|always never|all none|everyone nobody
everything nothing|often rarely|usually rarely|frequently seldom|many few|better worse|best worst|good bad|positive negative|public private
shallow deep|shallower deeper|rough smooth|tight loose|tighten loosen|sweet sour|fresh stale|raw cooked|frozen thawed|locked unlocked
"""
_OPPOSITES: Final = frozenset(frozenset(pair.split()) for line in _PAIRS.strip().split("\n") for pair in line.split("|"))
_WORDS: Final = frozenset(word for pair in _OPPOSITES for word in pair)
_ALIKE: Final = 0.6
"""Of a sentence's words, those that stand in the other one."""


def opposite_changes(original: Sequence[str], rewritten: Sequence[str]) -> tuple[list[str], list[str]]:
    """(lost, gained): words of the original that the rewrite has the opposites of in the same place, and those opposites."""
    others = [_TOKEN.findall(sentence.casefold()) for sentence in rewritten]
    bags = [frozenset(tokens) for tokens in others]
    lost: list[str] = []
    gained: list[str] = []
    for tokens in (_TOKEN.findall(sentence.casefold()) for sentence in original):
        bag = frozenset(tokens)
        if not others or not bag & _WORDS or tokens in others:
            continue
        place = max(range(len(bags)), key=lambda i: (len(bag & bags[i]), -len(bags[i])))
        other = others[place]
        if len(bag & bags[place]) < _ALIKE * len(bag):
            continue
        for kind, start, end, there, until in SequenceMatcher(None, tokens, other, autojunk=False).get_opcodes():
            if kind == "replace" and (end - start, until - there) == (1, 1) and {tokens[start], other[there]} in _OPPOSITES:
                lost.append(tokens[start])
                gained.append(other[there])
    return lost, gained
