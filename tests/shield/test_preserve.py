"""Verbatim spans: what is protected, and that it comes back byte for byte whatever the text."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.policy.schema import Preserve
from visa_proxy.shield.preserve import KINDS, PLACEHOLDER, protect

_PIECES = """⟦ ⟧ ⟦1⟧ ⟦2⟧ ⟦99999⟧ ⟦⟦1⟧⟧ ` ``` ~~~ $$ \\( \\) | |a|b| https://a.io/b?c=1 x@y.zz 3.5 -2 $1,200 50% “ ” " « » New York
    NASA iPhone שלום مرحبا 🎈👩‍👩‍👧 ١٢ ５ e\u0301 \u202e \u2028 \u0000 Jan May 3rd 12:30 pm 1. - * # ’ O’Neil Acme TrailPro"""
PIECES = st.sampled_from([*_PIECES.split(), "\n", " ", "\n\n", "\r\n", "\t", "Acme TrailPro"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join), st.lists(PIECES, max_size=25).map(" ".join))
GLOSSARY = ("Acme TrailPro", "⟦1⟧", "a|b")


@given(TEXTS, st.lists(st.sampled_from(KINDS), unique=True), st.sampled_from([(), GLOSSARY]))
def test_round_trip(text: str, kinds: list[Preserve], glossary: tuple[str, ...]) -> None:
    protected = protect(text, kinds, glossary)
    assert protected.intact(protected.text)
    assert protected.restore(protected.text) == text
    assert len(PLACEHOLDER.findall(protected.text)) == len(protected.spans)
    assert all(protected.spans), "no span is empty"


@given(TEXTS, st.text(max_size=10), st.integers(min_value=0))
def test_words_around_placeholders_may_change(text: str, added: str, place: int) -> None:
    protected = protect(text)
    edges = [0, *(match.end() for match in PLACEHOLDER.finditer(protected.text)), len(protected.text)]
    at = edges[place % len(edges)]
    rewritten = protected.text[:at] + added + protected.text[at:]
    if protected.intact(rewritten) and not set("⟦⟧") & set(added):
        restored = protected.restore(rewritten)
        assert all(span in restored for span in protected.spans)
        assert len(restored) == len(text) + len(added)
    else:
        assert set("⟦⟧") & set(added)


@given(TEXTS)
def test_losing_doubling_or_swapping_a_placeholder_is_noticed(text: str) -> None:
    protected = protect(f"17 and 18 {text}")
    first, last = "⟦1⟧", f"⟦{len(protected.spans)}⟧"
    spoilt = [protected.text.replace(last, ""), f"{protected.text} {first}", f"{protected.text} ⟦", f"⟧{protected.text}"]
    spoilt.append(protected.text.replace(first, "@").replace(last, first).replace("@", last))
    spoilt.append(protected.text.replace(last, "18"))
    for rewritten in spoilt:
        assert not protected.intact(rewritten)
        with pytest.raises(ValueError, match="not intact"):
            protected.restore(rewritten)


PYTHON = "```python\nx = 1  # ``\nprint(x)\n```"
OPEN = "~~~\nnever closed\n3 4"
TABLE = "| Size | Price |\n|------|-------|\n| M | $4 |"
SPANS: list[tuple[str, str, list[str]]] = [
    ("fence", f"Run this:\n{PYTHON}\nand wait.", [PYTHON]),
    ("fence-indented", "Do:\n  ```sh\n  rm -r x\n  ```\nnow.", ["```sh\n  rm -r x\n  ```"]),
    ("fence-open", f"So: \n{OPEN}", [OPEN]),
    ("fence-longer", "````\n```\n````\nok", ["````\n```\n````"]),
    ("inline", "Call `f(x, 2)` or ``a`b`` now.", ["`f(x, 2)`", "``a`b``"]),
    ("maths", r"So $$a^2 + b$$ and \(x_1\) and \[y\] hold.", ["$$a^2 + b$$", r"\(x_1\)", r"\[y\]"]),
    ("maths-inline", "So $x_1 + y$ and $E=mc^2$, or $a\nb$.", ["$x_1 + y$", "$E=mc^2$", "$a\nb$"]),
    ("fence-crlf", "So:\r\n```\r\n3\r\n```\r\nok", ["```\r\n3\r\n```"]),
    ("fence-closed-by-more", "```\n3\n````\nok", ["```\n3\n````"]),
    ("table", f"Prices:\n\n{TABLE}\n\nEnd.", [TABLE]),
    ("url", "See https://example.org/a_(b)?q=1&r=é#x, or www.a.io.", ["https://example.org/a_(b)?q=1&r=é#x", "www.a.io"]),
    ("url-brackets", "(see https://example.org/a) [x](https://b.io/c)", ["https://example.org/a", "https://b.io/c"]),
    ("email", "Write to first.last+tag@mail.example.co.uk today.", ["first.last+tag@mail.example.co.uk"]),
    ("numbers", "It takes 15 minutes, 3.5 cups, 1,200 steps and -4 degrees.", ["15", "3.5", "1,200", "-4"]),
    ("percent", "About 50% to 7.5 % of it.", ["50%", "7.5 %"]),
    ("currency", "It costs $1,299.99 or €40 or £7.", ["$1,299.99", "€40", "£7"]),
    ("range", "Bake for 10-12 minutes or 3–5 hours.", ["10-12", "3–5"]),
    ("units", "Add 250ml, 3kg, 20°C, 2x.", ["250ml", "3kg", "20°C", "2x"]),
    ("time", "Come at 7:30 pm or 10 a.m. sharp.", ["7:30 pm", "10 a.m."]),
    ("dates", "On March 3, 2024 and 4th of July and 2024-05-01.", ["March 3, 2024", "4th of July", "2024-05-01"]),
    ("list", "1. Rinse it.\n2. Boil it.\n", ["1.", "2."]),
    ("version", "Use v2 or 3.11.7 here.", ["3.11.7"]),
    ("quotes", 'He said "keep 3 going" and “never stop” and «là».', ['"keep 3 going"', "“never stop”", "«là»"]),
    ("names", "We met Ada Lovelace in New York with an iPhone.", ["Ada Lovelace", "New York", "iPhone"]),
    ("names-opening", "Use Python. Toyota makes cars; I drive a Toyota.", ["Python", "Toyota", "Toyota"]),
    ("names-acronym", "NASA and the EU agreed.", ["NASA", "EU"]),
    ("names-accents", "Then Zoë O’Neil called Jean-Luc.", ["Zoë O’Neil", "Jean-Luc"]),
    ("literal-brackets", "A ⟦1⟧ b", ["⟦", "⟧"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "spans"), [pytest.param(text, spans, id=name) for name, text, spans in SPANS])
def test_spans(text: str, spans: list[str]) -> None:
    protected = protect(text)
    assert list(protected.spans) == spans
    assert protected.restore(protected.text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Rinse the rice. Then boil it. The lid stays on.",
        "I think I should go, and I'm sure I'd like it.",
        "- Rinse\n- Boil\n\n**Note:** wait.",
        "It costs nothing; don't worry (really).",
        "",
        "   \n",
    ],
)
def test_plain_prose_has_no_spans(text: str) -> None:
    assert protect(text).spans == ()


def test_glossary_terms_need_no_capitals_and_match_exactly() -> None:
    text = "The acme trailpro and the Acme TrailPro Boots and `Acme TrailPro` and trail mix."
    assert protect(text, glossary=["Acme TrailPro", "Acme", "trail mix"]).spans == (
        "Acme TrailPro Boots",
        "`Acme TrailPro`",
        "trail mix",
    )
    assert protect(text, kinds=[], glossary=["Acme TrailPro"]).spans == ("Acme TrailPro", "Acme TrailPro")


@pytest.mark.parametrize(
    "span",
    [
        '"Run `make` at https://a.io/b now."',
        "“Ask Ada Lovelace about 42.”",
        "https://a.io/New_York/2024-05-01?x=3",
        "`curl https://a.io/1 'Ada'`",
        "2024-05-01T12:30:00Z",
        "555-123-4567",
    ],
)
def test_spans_that_overlap_are_one(span: str) -> None:
    assert protect(f"so {span} it goes").spans == (span,)


@pytest.mark.parametrize("text", ["$5 and $10", "$5/$10", "$ 5$", "5 $ x$y", r"\$a\$", "$a\n\nb$", "from $HOME to there"])
def test_prices_are_no_maths(text: str) -> None:
    assert protect(f"so {text} it goes", ["code"]).spans == ()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_kinds_asked_for(kind: Preserve) -> None:
    samples = {"code": "`x`", "urls": "http://a.io", "numbers": "42", "quotes": '"hm"', "names": "Ada"}
    text = "so " + " and ".join(samples.values())
    assert protect(text, [kind]).spans == (samples[kind],)


def test_the_kinds_are_those_of_the_policy_schema() -> None:
    assert get_args(Preserve) == KINDS


@pytest.mark.parametrize(
    "text",
    [
        "`" * 20_000,
        "` " * 20_000,
        "`a``b```c" * 3000,
        "|" * 30_000,
        "| a | b\n" * 5000,
        '"' + "a" * 30_000,
        '" “ ' * 10_000,
        "$$ " * 10_000 + "\\( " * 10_000,
        "\\[ " * 10_000,
        "$a " * 15_000,
        "$a\n" * 15_000,
        "$" * 30_000,
        "www.(" * 10_000,
        "www.a(b" * 8000,
        "1," * 20_000,
        "1-" * 20_000,
        "a@" * 20_000,
        "a." * 20_000,
        "Aa " * 20_000,
        "```\n" * 5001,
        "~~~~" * 5000,
        "⟦⟧" * 4000,
        " " * 50_000,
        "\n" * 50_000,
        "http://" * 5000,
        "Jan 1 " * 8000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_no_text_takes_long(text: str) -> None:
    """It runs in the event loop: some 50 kB of the worst must not hold up other requests for seconds."""
    started = time.process_time()
    protect(text)
    assert time.process_time() - started < 1.5
