"""Answers of every shape, from a seed: Markdown, code, tables, maths, any script, very long words, no punctuation at all."""

from __future__ import annotations

import random
from collections.abc import Callable

SENTENCES = (
    "Rinse the rice under cold water until it runs clear.",
    "Use two cups of water for each cup of rice.",
    "Bring it to a boil in a heavy pot!",
    "Does it need salt?",
    "Turn the heat down, e.g. to the lowest level, and cover the pot.",
    "Dr. Ada Lovelace of London cooks it for 15 minutes at 95.5 °C.",
    "She said: “Wait. Do not lift the lid.”",
    'He answered "Of course. I never do." and left.',
    "See [the long guide. Really](https://example.org/a_(b)?q=1) for more.",
    "It costs $5 and saves $10 a month.",
    "The ratio is $r = w / v. $ at most, so `stir(pot).` it once.",
    "**Never. Ever.** leave it alone…",
    "Le café est prêt 🎉 dès 8 heures.",
    "Die Straße ist naß; „alles gut“, sagte er.",
    "مرحبا بالعالم، هذا نص عربي. هل أنت مستعد؟",
    "זה טקסט בעברית עם מספר 42.",
    "米を洗ってください。水は二カップです！",
    "👩‍👩‍👧‍👦 Families of four need more 🍚🍚.",
    "No\u00a0break, zero\u200bwidth and a combining e\u0301.",
    "Line\u2028separators and \u0085 too.",
)


def _one_of(count: int, chance: random.Random) -> random.Random:
    """Where a piece of text comes from: there are few, so that measuring them costs little, and many ways to put them together."""
    return random.Random(chance.randrange(count))


def _paragraph(chance: random.Random) -> str:
    chance = _one_of(60, chance)
    joint = chance.choice([" ", " ", "  ", "\n"])
    return joint.join(chance.choice(SENTENCES) for _ in range(chance.randint(1, 4)))


def _bare(chance: random.Random) -> str:
    chance = _one_of(10, chance)
    return " ".join(chance.choice(["water", "pot", "and", "rice", "steam", "then"]) for _ in range(chance.randint(3, 60)))


def _long_word(chance: random.Random) -> str:
    chance = _one_of(4, chance)
    return "".join(chance.choice(["ab", "ß", "米", "é"]) for _ in range(chance.randint(50, 1500)))


def _list(chance: random.Random) -> str:
    chance = _one_of(40, chance)
    mark = chance.choice(["- ", "* ", "1. ", "2) "])
    lines = [f"{mark}{chance.choice(SENTENCES)}" for _ in range(chance.randint(2, 6))]
    if chance.random() < 0.4:
        lines.insert(1, f"   - {chance.choice(SENTENCES)}")
    return chance.choice(["\n", "\n", "\n\n"]).join(lines)


def _table(chance: random.Random) -> str:
    chance = _one_of(20, chance)
    rows = [f"| {chance.choice(['rice', '米', 'a. B'])} | {chance.randint(1, 99)} |" for _ in range(chance.randint(1, 5))]
    return "\n".join(["| grain | cups |", "|---|--:|", *rows])


def _fence(chance: random.Random) -> str:
    mark = chance.choice(["```", "~~~", "````"])
    body = "\n".join(chance.choice(["x = 1. ", "  if a:\tb()", "", "# Ünïcode 🎉", "``"]) for _ in range(chance.randint(0, 8)))
    return f"{mark}python\n{body}\n" + (mark if chance.random() < 0.8 else "")


def _heading(chance: random.Random) -> str:
    return f"{'#' * chance.randint(1, 4)} {chance.choice(['Steps', 'What you need. And why', '手順'])}"


def _maths(chance: random.Random) -> str:
    return chance.choice(["$$\na = b. \nC\n$$", "\\[ x. Y \\]", "$$ open", "Here \\(a. B\\) is $c. d$ again."])


def _debris(chance: random.Random) -> str:
    return chance.choice(
        [
            "⟦1⟧ and ⟧",
            "`open tick. And",
            '"open quote. And',
            "[open link. And",
            "**open bold. And",
            "***",
            "> quoted. Text",
            "|",
            "\t",
            "<b>x. Y</b>",
        ]
    )


_KINDS: tuple[Callable[[random.Random], str], ...] = (
    _paragraph, _paragraph, _paragraph, _bare, _long_word, _list, _table, _fence, _heading, _maths, _debris,
)  # fmt: skip


def document(seed: int) -> str:
    """Always the same for a seed; never only white space."""
    chance = random.Random(seed)
    blocks = [chance.choice(_KINDS)(chance) for _ in range(chance.randint(1, 3))]
    text = chance.choice(["\n\n", "\n\n", "\n", "\r\n\r\n"]).join(blocks) + chance.choice(["", "", "\n", "  "])
    return text if text.strip() else "Rinse it."


def cut(text: str, chance: random.Random) -> list[str]:
    """`text` in pieces of random length: runs of short ones, some of a single character, and runs of long ones."""
    pieces, position = [], 0
    while position < len(text):
        longest = chance.choice([1, 4, 20, 400])
        for _ in range(chance.randint(1, 16)):
            size = chance.randint(1, longest)
            pieces.append(text[position : position + size])
            position += size
    return [piece for piece in pieces if piece]
