"""Source texts for the synthetic rewrites: corpus windows, cut, mixed and decorated to look like what serving sends."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.policy.schema import Preserve
from visa_proxy.shield.preserve import KINDS, PLACEHOLDER, Protected, protect

_LIST: Final = re.compile(r"[ \t]*(?:[-*•+>]|#{1,6}|\d{1,3}[.)]|\|)[ \t]")
_MARKER: Final = re.compile(r"\d{1,3}[.)]\Z")
_GERUND: Final = ("Start by", "Consider")
_ABLE: Final = ("You can", "You should", "Try to", "Make sure to")
_OTHERS: Final = (
    *_ABLE,
    "It is a good idea to",
    "It helps to",
    "One option is to",
    "The best way is to",
    "It is important to",
)
_INTROS: Final = (
    "Here are some points:",
    "A few things matter here:",
    "Keep these in mind:",
    "It usually does the following:",
    "These steps help:",
)
_CODE: Final = ("```python\nprint(total)\n```", "```\nmake install\n```", "```js\nconst a = 1;\n```", "$$a^2 + b^2$$")
_URLS: Final = ("See https://example.com/guide for details.", "More at https://docs.example.org/start.")
_HEADS: Final = ("## Overview", "## What to know", "**In short**", "### Details", "Notes:", "Key points:", "Summary")
MAX_WORDS: Final = 130


@dataclass(frozen=True)
class Piece:
    """A sentence, or a whole line that is no prose (list item, heading, lone placeholder)."""

    text: str
    gap: str
    """White space between this piece and the next; "" after the last."""
    prose: bool


@dataclass(frozen=True)
class Sources:
    """Draws source texts; the same seed draws the same texts."""

    texts: tuple[str, ...]
    sentences: tuple[str, ...]
    advice: tuple[str, ...]
    """Windows that hold a sentence with a neutral lead-in ("You can …"), drawn more often than their share."""
    common: frozenset[str]
    """Words seen in lower case: only these lose their capital behind a lead."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Sources:
        sentences = [s for text in texts for s in split_sentences(text) if 5 <= len(s.split()) <= 40 and s[-1] in ".!?"]
        words = Counter(re.findall(r"\b[a-z]+\b", "\n".join(texts)))
        advice = [text for text in texts if any(s.startswith((*_ABLE, *_GERUND)) for s in split_sentences(text))]
        return cls(tuple(texts), tuple(sentences), tuple(advice or texts), frozenset(w for w, n in words.items() if n >= 3))

    def draw(self, rng: random.Random) -> Protected:
        """A protected text of 1 to about 8 pieces and at most 130 words."""
        text = self._plain(rng)
        if rng.random() < 0.5:
            text = reworded(text, rng)
        if rng.random() < 0.3:
            text = self._laid_out(text, rng)
        if rng.random() < 0.12:
            text = _decorated(text, rng)
        return _renumbered(protect(text, _kinds(rng)), rng)

    def _laid_out(self, text: str, rng: random.Random) -> str:
        """In paragraphs, or with a list of short items between prose, as assistants lay out most answers."""
        sentences = split_sentences(text)[:5]
        if rng.random() < 0.4:
            breaks = [rng.choice(("\n\n", "\n\n", "\n", " ")) for _ in sentences]
            return "".join(s + gap for s, gap in zip(sentences, breaks, strict=True)).strip()
        ordered, bare, bold = rng.random() < 0.35, rng.random() < 0.4, rng.random() < 0.2
        items: list[str] = []
        for number in range(rng.randint(2, 5)):
            words = rng.choice(self.sentences).rstrip(".!?").split()[: rng.randint(2, 12)]
            head = f"**{words[0]}**: " if bold else ""
            body = " ".join(words[bold:]).strip("(),;:. ") or "rest"
            items.append(f"{f'{number + 1}.' if ordered else '-'} {head}{body}{'' if bare else '.'}")
        before = sentences[: rng.randint(0, len(sentences))]
        after = sentences[len(before) :]
        if before and rng.random() < 0.5:
            intro = " ".join(before).rstrip(".!?") + ":"
        else:
            intro = " ".join([*before, rng.choice(_INTROS)])
        gap = rng.choice(("\n", "\n\n"))
        return "\n\n".join(filter(None, (intro + gap + "\n".join(items), " ".join(after))))

    def _plain(self, rng: random.Random) -> str:
        kind = rng.random()
        if kind < 0.25:
            count = rng.choices((1, 2, 3, 4), (3, 4, 3, 2))[0]
            return " ".join(rng.sample(self.sentences, min(len(self.sentences), count)))
        if kind < 0.33:
            return _shuffled(rng.choice(self.sentences), rng)
        pieces = cut(rng.choice(self.advice if rng.random() < 0.25 else self.texts))
        count = rng.choices((1, 2, 3, 4, 5, 99), (18, 28, 20, 12, 7, 12))[0]
        start = rng.randrange(max(1, len(pieces) - count + 1))
        if start and not pieces[start].prose:
            start = 0
        return joined(pieces[start : start + count])


def cut(text: str) -> list[Piece]:
    """`text` as pieces; joining text and gap gives it back."""
    return cut_protected(Protected(text, ()))


def cut_protected(source: Protected) -> list[Piece]:
    """The pieces of a protected text. A line that opens with a protected list marker is a list line."""
    pieces: list[Piece] = []
    for line in re.findall(r"[^\n]+\n*|\n+", source.text):
        body = line.rstrip("\n")
        breaks = line[len(body) :]
        if not _is_prose(body, source.spans):
            pieces.append(Piece(body, breaks, False))
            continue
        position = 0
        starts: list[int] = []
        for sentence in split_sentences(body):
            position = body.index(sentence, position)
            starts.append(position)
            position += len(sentence)
        starts[0] = 0
        for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
            text = body[start:end].rstrip(" ")
            pieces.append(Piece(text, body[start + len(text) : end] or breaks, True))
    return pieces


def joined(pieces: Sequence[Piece]) -> str:
    """The text of consecutive pieces, without the last one's gap."""
    return "".join(p.text + p.gap for p in pieces).strip("\n ")


def _is_prose(line: str, spans: tuple[str, ...]) -> bool:
    placeholder = PLACEHOLDER.match(line.lstrip())
    number = int(placeholder[1]) if placeholder else 0
    marker = 0 < number <= len(spans) and _MARKER.match(spans[number - 1])
    return bool(
        split_sentences(line)
        and not _LIST.match(line)
        and not marker
        and line.rstrip()[-1:] in ".!?:"
        and PLACEHOLDER.sub("", line).strip(" .")
    )


def reworded(text: str, rng: random.Random) -> str:
    """Other neutral lead-ins for "You can …": corpora say little else, assistants vary."""
    return re.sub(
        r"(?:^|(?<=[.!?] )|(?<=\n))You (?:can|should) (?=(?!also|be |not|always|then|still|even|only)[a-z])",
        lambda _: f"{rng.choice(_OTHERS)} ",
        text,
    )


def _decorated(text: str, rng: random.Random) -> str:
    """With a heading, a code block, a link or an inline code span, as markdown answers have."""
    choice = rng.randrange(5)
    if choice == 0:
        return f"{rng.choice(_HEADS)}\n{rng.choice(('', chr(10)))}{text}"
    if choice == 1:
        return f"{text}\n\n{rng.choice(_CODE)}" + ("" if rng.random() < 0.5 else "\n\nRun it once more.")
    if choice == 2:
        return f"{text} {rng.choice(_URLS)}"
    words = text.split(" ")
    index = rng.randrange(len(words))
    if choice == 3 and words[index].isalpha():
        words[index] = f"`{words[index]}`" if rng.random() < 0.5 else f"**{words[index]}**"
        return " ".join(words)
    return text.replace(". ", ".\n\n", 1)


def _shuffled(sentence: str, rng: random.Random) -> str:
    """The same words in another order: the only way to write this down is to copy it."""
    words = sentence.rstrip(".!?").split(" ")
    rng.shuffle(words)
    return " ".join(words)[:1].upper() + " ".join(words)[1:] + "."


def _kinds(rng: random.Random) -> list[Preserve]:
    chance = rng.random()
    if chance < 0.6:
        return list(KINDS)
    return [] if chance > 0.92 else [kind for kind in KINDS if kind == "code" or rng.random() < 0.7]


def _renumbered(source: Protected, rng: random.Random) -> Protected:
    """Sometimes with higher numbers: a later window of an answer does not start at ⟦1⟧."""
    if not source.spans or rng.random() < 0.7 or len(source.spans) > 40:
        return source
    shift = rng.randrange(1, 64 - len(source.spans))
    text = PLACEHOLDER.sub(lambda match: f"⟦{int(match[1]) + shift}⟧", source.text)
    return Protected(text, ("",) * shift + source.spans)
