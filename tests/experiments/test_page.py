"""The report as Markdown and as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.experiments.made import row, scored
from visa_proxy.experiments.figures import Report
from visa_proxy.experiments.html import html
from visa_proxy.experiments.markdown import markdown
from visa_proxy.experiments.plots import PLOTS, draw
from visa_proxy.experiments.report import analyse


@pytest.fixture(scope="module")
def report() -> Report:
    rng = np.random.default_rng(9)
    rows = [
        row(
            i,
            ("calm", "bold")[i % 2],
            day=i / 60,
            score=float(rng.normal(0.1 + 0.2 * (i % 2), 0.3)),
            thumbs="up" if i % 3 else "down",
        )
        for i in range(600)
    ]
    return analyse(rows, tenant="acme", experiment="voice", weights={"calm": 1, "bold": 1}, effect=0.05)


def cells(page: str, first: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_figures_are_in_the_page(report: Report) -> None:
    page = markdown(report)
    assert page.startswith("# Experiment voice of acme\n") and "## Cautions" not in page
    bold = report.arms[1]
    assert bold.against_control is not None
    score = bold.against_control["feedback"]
    assert score.always.interval is not None and score.difference is not None
    lift = cells(page, "bold")
    assert lift[1] == f"{score.difference:+.3f}"
    assert lift[2] == f"{score.always.interval.low:+.3f} … {score.always.interval.high:+.3f}"
    assert str(score.always.needed) in lift[-1].replace(" ", "")
    assert cells(page, "thumbs up")[1].startswith(f"{report.arms[0].metrics['thumbs'].mean * 100:.1f} % (")  # type: ignore[operator]
    assert cells(page, "gain" if "| gain |" in page else "similarity gain")[1:] == ["–", "–"]
    assert "nan" not in page.lower().replace("finance", "")


def test_every_row_of_a_table_has_its_columns(report: Report) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", markdown(report), re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_an_experiment_without_rows_has_a_page() -> None:
    empty = analyse([], weights={"a": 1, "b": 1})
    assert "No requests yet." in markdown(empty) and "too little to say" in markdown(empty)
    assert "<svg" not in html(empty)
    assert "There is no other arm" in markdown(analyse([row(1, "a")]))


class Page(HTMLParser):
    """What an HTML file holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "br"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "path", "use", "br"):
            self.open.pop()


def test_the_html_needs_nothing_else(report: Report) -> None:
    text = html(report)
    page = Page(text)
    assert page.open == [] and page.tags.count("svg") == 2 and page.tags.count("table") == 4
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.links and all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)|@import", text)


def test_names_of_the_store_are_no_markup() -> None:
    name = "<b>x</b>|`*\x1b[31m"
    tenant = "<script>alert(1)</script>"
    report = analyse(scored({"a": np.linspace(0, 1, 40), name: np.linspace(0, 1, 40)}, tenant=tenant), tenant=tenant)
    text, page = html(report), markdown(report)
    assert "<script" not in text and "<b>" not in text and "&lt;b&gt;x" in text
    assert "\x1b" not in text + page and "\\<b>x\\</b>\\|\\`\\*" in page


def test_plots_are_svg_and_always_the_same(report: Report) -> None:
    for name in PLOTS:
        picture = draw(name, report)
        assert picture == draw(name, report)
        texts = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
        assert "score, difference to calm" in texts
    ids = [re.findall(r' id="(p[0-9a-f]{6,})"', draw(name, report)) for name in PLOTS]
    assert ids[0] and ids[1] and not set(ids[0]) & set(ids[1])
