"""The windows of an answer: what they are, that nothing is lost or torn, and that only the text decides."""

from __future__ import annotations

import re
import time
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visa_proxy.shield.windows import GOALS, HORIZON, MAX_WINDOW, Cutter, Splitter, Whole, Window, looks_like_json

LEAD = "This sentence is long enough to be a window. "
"""More than GOALS[0] characters."""
LONG = "It goes on about nothing at all, as it must, for more characters than any goal asks for, " * 4
_PIECES = """` `` ``` ~~~ $$ $ \\( \\) \\[ \\] | |a|b| a|b --|-- ---|--- [ ]( ) ![ ** * _ # ## > - 1. 2) 10. " “ ” « » . ! ? … 。 ！ ؟ Foo bar
    Baz e.g. Dr. https://a.io/b?c=1 שלום مرحبا 🎈👩‍👩‍👧 e\u0301 { } [ ] === --- *** [1] {"a":1 • + 1234567890. ~~~~ 「。」 🇩🇪"""
PIECES = st.sampled_from(
    [*_PIECES.split(), "\n", "\n\n", " ", "  ", "\r\n", "\r", "\t", "\u2028", "\x0b", "```py\n", "```\n", "x" * 300]
)
TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(PIECES, max_size=60).map("".join),
    st.lists(PIECES, max_size=60).map(" ".join),
    st.builds(
        lambda pieces, times: (" ".join(pieces) * times)[:6000], st.lists(PIECES, min_size=1, max_size=8), st.integers(1, 300)
    ),
)


def cut(splitter: Splitter, text: str, size: int | None = None) -> list[Window]:
    """The windows of `text` fed in pieces of `size` characters."""
    size = size or max(1, len(text))
    windows = [window for at in range(0, len(text), size) for window in splitter.feed(text[at : at + size])]
    return windows + splitter.end()


def texts(text: str, *, verbatim: bool = True, size: int | None = 1) -> list[str]:
    """The windows' texts, verbatim ones marked."""
    return ["V:" + each.text if each.verbatim else each.text for each in cut(Cutter(verbatim=verbatim), text, size)]


@settings(max_examples=1500, deadline=None)
@given(TEXTS, st.booleans(), st.sampled_from([1, 2, 3, 7, 100]))
def test_lossless_bounded_and_the_same_whatever_the_pieces(text: str, verbatim: bool, size: int) -> None:
    cutter = Cutter(verbatim=verbatim)
    windows: list[Window] = []
    fed = given_back = 0
    for at in range(0, len(text), size):
        piece = text[at : at + size]
        closed = cutter.feed(piece)
        windows += closed
        fed, given_back = fed + len(piece), given_back + sum(len(window.text) for window in closed)
        assert fed - given_back <= HORIZON
    windows += cutter.end()
    assert "".join(window.text for window in windows) == text
    assert all(0 < len(window.text) <= HORIZON for window in windows)
    assert windows == cut(Cutter(verbatim=verbatim), text), "in one piece"


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 50))
def test_whole_is_one_window(text: str, size: int) -> None:
    whole = Whole()
    assert cut(whole, text, size) == ([Window(text)] if text else [])
    assert cut(whole, "again") == [Window("again")], "nothing is left of the text before"


FENCE = "```py\nx = 1.\n\nY = 2\n```\n"
CASES: list[tuple[str, str, list[str]]] = [
    ("sentences", f"{LEAD}Next one. And more.", [LEAD, "Next one. And more."]),
    ("lower case", "It is e.g. a lot longer than the goal asks for. and so it goes. End.",
     ["It is e.g. a lot longer than the goal asks for. and so it goes. ", "End."]),
    ("abbreviation", "A sentence that is longer than the goal by Dr. Smith. End.",
     ["A sentence that is longer than the goal by Dr. Smith. ", "End."]),
    ("initial", "A sentence that is longer than the goal by J. Smith. End.",
     ["A sentence that is longer than the goal by J. Smith. ", "End."]),
    ("closing quote", "He said to all of them over and over “Go home now.” They went.",
     ["He said to all of them over and over “Go home now.” ", "They went."]),
    ("cjk", "这" * 45 + "。那" + "么" * 3, ["这" * 45 + "。", "那么么么"]),
    ("arabic", "ا" * 45 + "؟ ب", ["ا" * 45 + "؟ ", "ب"]),
    ("paragraphs", "no full stop in it, and of some length\n\nand another", ["no full stop in it, and of some length\n\n", "and another"]),
    ("crlf", f"{LEAD.strip()}\r\n\r\nMore.", [f"{LEAD.strip()}\r\n\r\n", "More."]),
    ("heading", f"{LEAD}\n\n## One. Two\n\nText. End.", [f"{LEAD}\n\n", "## One. Two\n\nText. End."]),
    ("headings", "# A heading. That is quite long in itself\n\n## Two\n\nText. End.",
     ["# A heading. That is quite long in itself\n\n## Two\n\nText. ", "End."]),
    ("setext", "A heading. That is quite long in itself yes\n---\n\nText. End.",
     ["A heading. That is quite long in itself yes\n---\n\nText. ", "End."]),
    ("list", "Do:\n\n1. One. Two.\n   - In. It\n\n   Loose. One.\n2. More of it.\nLazy. Line.\n\nText. End.",
     ["Do:\n\n1. One. Two.\n   - In. It\n\n   Loose. One.\n2. More of it.\nLazy. Line.\n\n", "Text. End."]),
    ("bullets", f"- {LEAD}\n* {LEAD}\n+ {LEAD}\n\nEnd.", [f"- {LEAD}\n* {LEAD}\n+ {LEAD}\n\n", "End."]),
    ("year", f"{LEAD}\nIt was in\n1986. Then.", [LEAD + "\n", "It was in\n1986. Then."]),
    ("quoted list", f"> - {LEAD}\n> - {LEAD}\n\nEnd.", [f"> - {LEAD}\n> - {LEAD}\n\n", "End."]),
    ("fence", f"Hi.\n{FENCE}\nEnd.", ["Hi.\n", "V:```py\n", "V:x = 1.\n", "V:\n", "V:Y = 2\n", "V:```\n", "V:\n", "End."]),
    ("fence open", "~~~\na. B\n", ["V:~~~\n", "V:a. B\n"]),
    ("fence longer", "````\n```\n````\nEnd.", ["V:````\n", "V:```\n", "V:````\n", "End."]),
    ("fence quoted", "> ```\n> a\nEnd.", ["V:> ```\n", "V:> a\n", "End."]),
    ("fence in list", "- a\n  ```\n  x\n  ```\n- b. C", ["- a\n", "V:  ```\n", "V:  x\n", "V:  ```\n", "- b. C"]),
    ("no fence", "```x``` is code. End.", ["```x``` is code. End."]),
    ("table", "Hi.\n\n| A | B |\n|---|---|\n| 1. X | 2 |\nEnd.",
     ["Hi.\n\n", "V:| A | B |\n", "V:|---|---|\n", "V:| 1. X | 2 |\n", "End."]),
    ("table without outer pipes", "Hi.\n\nA | B\n--|:-:\n1. X | 2\n\nEnd.",
     ["Hi.\n\n", "V:A | B\n", "V:--|:-:\n", "V:1. X | 2\n", "V:\n", "End."]),
    ("no table", "P(a|b) is.\nThen | so.\nEnd.", ["P(a|b) is.\nThen | so.\nEnd."]),
    ("display maths", "So:\n$$\nx. Y\n$$\n\\[\ny. Z\n\\]\nEnd.", ["So:\n", "V:$$\nx. Y\n$$\n", "V:\\[\ny. Z\n\\]\n", "End."]),
    ("json", '{"a": "Hi. You",\n"b": 2}', ['V:{"a": "Hi. You",\n', 'V:"b": 2}']),
    ("white space", " \n", ["V: \n"]),
    ("empty", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "windows"), [pytest.param(text, windows, id=name) for name, text, windows in CASES])
def test_windows(text: str, windows: list[str]) -> None:
    assert texts(text) == windows


@pytest.mark.parametrize(
    "span",
    ["`a. B`", "``a`. B``", "$a. B$", "\\(a. B\\)", "$$a. B$$", "\\[a. B\\]", "[a. B](c)", "[a](b 'C. D')", "![a. B](c)", '"A. B"', "“A. B”",
     "«A. B»", "**A. B**", "[![a. B](c)](d)", '"A `b` c. D"'],
)  # fmt: skip
def test_no_cut_inside_a_span(span: str) -> None:
    text = f"{LEAD.strip()[:-1]} {span} and on. End."
    assert texts(text) == [text[:-4], "End."]


@pytest.mark.parametrize("opener", ["`", "$", "\\(", "[", '"', "“", "**", "$$", "\\[", "|"])
def test_an_opener_that_nothing_closes_is_no_span(opener: str) -> None:
    text = f"{LEAD.strip()[:-1]} {opener}a then. End. {LONG * 4}"
    cutter = Cutter()
    closed = [window for character in text for window in cutter.feed(character)]
    assert closed[0].text == text[: text.index("End.")]


def test_prices_are_no_maths() -> None:
    text = "It cost some $5 in the old days, they say. Now it is $10 or so. End."
    assert texts(text)[0] == "It cost some $5 in the old days, they say. "


def test_a_window_leaves_as_soon_as_the_next_sentence_begins() -> None:
    cutter = Cutter()
    assert cutter.feed(LEAD) == [], "a lower-case letter may follow"
    assert cutter.feed("N") == [Window(LEAD)]


def test_windows_grow_and_verbatim_ones_do_not_count() -> None:
    sentence = "Twenty characters x. "
    lengths = [len(window.text) for window in cut(Cutter(), FENCE + sentence * 100) if not window.verbatim]
    expected = [-(-goal // len(sentence)) * len(sentence) for goal in (*GOALS, GOALS[-1])]
    assert lengths[: len(expected)] == expected


def test_the_goals_go_on_after_an_end() -> None:
    cutter = Cutter()
    assert [window.text for window in cut(cutter, LEAD + "Next. ")] == [LEAD, "Next. "]
    assert len(cut(cutter, LEAD * 4 + "End.")) == 1, "the third goal is larger"
    assert cut(cutter, '{"a": 1}') == [Window('{"a": 1}', verbatim=True)]


@pytest.mark.parametrize("verbatim", [True, False])
def test_a_list_is_cut_between_items_only_when_it_is_too_long(verbatim: bool) -> None:
    items = [f"{number}. {LEAD}\n   - {LEAD}\n" for number in range(1, 60)]
    windows = [window.text for window in cut(Cutter(verbatim=verbatim), f"Lead:\n\n{''.join(items)}")]
    borders = set(accumulate((len(item) for item in items), initial=len("Lead:\n\n")))
    assert set(accumulate(len(window) for window in windows)) <= borders
    assert windows[0] == "Lead:\n\n"
    assert all(MAX_WINDOW - 200 < len(window) <= MAX_WINDOW for window in windows[1:-1])


def test_a_long_item_is_cut_at_a_sentence_end() -> None:
    windows = texts("- " + LEAD * 100)
    assert len(windows) > 1
    assert all(window.endswith(LEAD) for window in windows)


def test_blocks_that_are_not_kept_are_cut_at_line_ends_only_beyond_the_bound() -> None:
    text = f"Hello to all of you.\n\n{FENCE}\nEnd of it."
    assert texts(text, verbatim=False) == [f"Hello to all of you.\n\n{FENCE}\n", "End of it."]
    windows = texts("```\n" + "a. B\n" * 900 + "```\n", verbatim=False)
    assert len(windows) == 3
    assert all(window.endswith("\n") for window in windows)


@pytest.mark.parametrize("character", ["e\u0301", "👩‍👩‍👧", "👍🏽", "🇩🇪"])
def test_a_word_too_long_is_cut_between_characters(character: str) -> None:
    windows = [window.text for window in cut(Cutter(), character * 1501)]
    assert len(windows) > 1
    assert all(set(window.split(character)) == {""} for window in windows)


def test_a_line_end_is_not_cut_in_two() -> None:
    windows = [window.text for window in cut(Cutter(), "x" * (MAX_WINDOW - 1) + "\r\n" + "x" * 3000)]
    assert windows[0] == "x" * (MAX_WINDOW - 1)


def test_a_cut_without_punctuation_is_at_white_space_outside_spans() -> None:
    text = "word " * 380 + '"' + "quoted " * 30 + '" ' + "word " * 200
    assert texts(text)[0] == "word " * 380


@pytest.mark.parametrize(
    "text", ['{"a"', "{ ", "{}", "{\n", '[{"a": 1}]', '["a"]', "[[1]]", "[1, 2]", "[]", "[\n  {", " \n{}", "[-1.5, 2]"]
)
def test_json(text: str) -> None:
    assert looks_like_json(text)
    assert all(window.verbatim for window in cut(Cutter(), f"{text} A. B\n{LONG}", 1))


@pytest.mark.parametrize(
    "text", ["", "{", "[", "{a}", "[a](b)", "[1] says so", "[2024 report](x)", "[ ] do", "So {}", "{{name}}"]
)
def test_no_json(text: str) -> None:
    assert not looks_like_json(text)


INLINE = re.compile(
    r'`[^`\n]+`|\$[^$\n ][^$\n]*(?<! )\$(?!\d)|\\\(.+?\\\)|!?\[[^\]\n]*\]\([^)\n]*\)|"[^"\n]+"|“[^”\n]+”|\*\*[^*\n]+\*\*'
)
BLOCK = re.compile(
    r"^```.*?^```$|^\$\$.*?\$\$|(?:^\|.*?\|\n)+|^a \| b\n(?:[^\n]*\|[^\n]*\n)+|(?:^(?:\d\.|  -) [^\n]*\n)+",
    re.M | re.S,
)
HEADING = re.compile(r"^#+ [^\n]*\n+[^\n]", re.MULTILINE)
SENTENCES = st.sampled_from(
    ["One two. ", "Is it? ", "Call `f. X` now. ", "So $a. B$ is. ", "Or \\(a. B\\) so! ", "See [the. Page](http://a.io/b). ",
     'Say "No. Go." ',
     "“Now. Then.” He left. ", "**Be. Bold.** Yes. ",
     "It is $5. Not $10. ", "For e.g. Dr. Who. ", "A 5\" disk. It spins. "]
)  # fmt: skip
BLOCKS = st.one_of(
    st.lists(SENTENCES, min_size=1, max_size=12).map("".join),
    st.lists(SENTENCES, min_size=1, max_size=5).map(lambda items: "".join(f"1. {item}\n  - {item}\n" for item in items)),
    st.lists(SENTENCES, min_size=1, max_size=5).map(
        lambda rows: "| A. B | C |\n|---|---|\n" + "".join(f"| {row}| X |\n" for row in rows)
    ),
    st.lists(SENTENCES, min_size=1, max_size=5).map(lambda rows: "a | b\n--|--\n" + "".join(f"{row}| X\n" for row in rows)),
    SENTENCES.map(lambda code: f"```\n{code}\n\n{code}\n```"),
    SENTENCES.map(lambda title: f"## {title}"),
    st.just("$$\na. B\n\\text{It. Is}\n$$"),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(BLOCKS, min_size=1, max_size=12))
def test_no_border_inside_a_construct(blocks: list[str]) -> None:
    """Against a finder that sees the whole text; without verbatim blocks, since those are released line by line."""
    text = "\n\n".join(blocks) + "\n"
    constructs = [match.span() for match in BLOCK.finditer(text)]
    for line in re.finditer(r"[^\n]+", text):
        if not any(start <= line.start() < end for start, end in constructs):
            constructs += [(line.start() + a.start(), line.start() + a.end()) for a in INLINE.finditer(line[0])]
    constructs += [match.span() for match in HEADING.finditer(text)]
    borders = list(accumulate(len(window.text) for window in cut(Cutter(verbatim=False), text, 3)))[:-1]
    assert not [text[a:b] for a, b in constructs for border in borders if a < border < b]
    for window in cut(Cutter(), text, 3):
        assert window.verbatim or "```" not in window.text
        assert window.verbatim or "\n|" not in window.text


@pytest.mark.parametrize(
    "text", ['Rinse the rice. Then boil it, says `x`, with "care" and [more](http://a.io). ', "- a\n", "\\( ", "\n", '" ', "word"]
)
def test_time_grows_with_the_text(text: str) -> None:
    text = (text * (300_000 // len(text)))[:300_000]
    started = time.process_time()
    cut(Cutter(), text, 5)
    assert time.process_time() - started < 10
