"""Figures of a data set so small that they are computed by hand, and its plots."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.fakes.annotator import annotated
from visa_proxy.training.vcr.annotator import Prompt
from visa_proxy.training.vcr.samples import Sample, samples_of
from visa_proxy.training.vcr.statistics import PLOTS, page, plot, statistics, tables
from visa_proxy.values import load_space

PAIRS = [
    annotated(0, "a", {"security": 1}, {"security": 0.5}),
    annotated(1, "b", {"security": 1}, {"security": 1, "power": -1}),
    annotated(2, "c", {"power": -1, "hedonism": 1}, {"security": 1}),
]
SAMPLES: list[Sample] = [sample for each in PAIRS for sample in samples_of(each)]


def test_the_figures() -> None:
    found = statistics(SAMPLES)
    # Targets: s1 | s.5 | s1 | s1 p-1 | p-1 h1 | s1.
    assert found["unique_vectors"] == 4
    security, power = found["dimensions"]["security"], found["dimensions"]["power"]
    assert security["mean"] == pytest.approx(4.5 / 6)
    assert security["levels"] == {"-1": 0, "-0.5": 0, "0": 0.1667, "0.5": 0.1667, "1": 0.6667}
    assert (power["mean"], power["levels"]["-1"], power["levels"]["0"]) == (-0.3333, 0.3333, 0.6667)
    # Δv: s0.5; p1; s-1 p-1 h1, and the same the other way round.
    assert [found["dimensions"][n]["unchanged"] for n in ("security", "power", "hedonism", "tradition")] == [
        0.3333,
        0.3333,
        0.6667,
        1,
    ]
    assert found["unchanged"] == pytest.approx(1 - 5 / 30, abs=1e-4)
    assert found["shift"]["mean"] == pytest.approx((0.5 + 1 + 3**0.5) / 3, abs=1e-4)
    assert found["shift"]["micro"] == 0.6667
    assert found["shift"]["histogram"] == {"edges": [0, 0.5, 1, 1.5, 2], "counts": [2, 2, 0, 2]}


def test_the_tables_have_a_row_for_each_dimension() -> None:
    text = tables(statistics(SAMPLES))
    assert "4 different value vectors" in text and "66.7% are micro edits" in text
    assert "| security | +0.75 | 0.0% | 0.0% | 16.7% | 16.7% | 66.7% | 33.3% |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 12 and {row.count("|") for row in rows} == {9}


def test_the_page_says_how_it_was_made() -> None:
    prompt = Prompt(load_space("schwartz"), "oracle", 3)
    more = {"counts": {"pairs": 3}, "skipped": {"repeated": 2}, "parts": {"train": 6}}
    text = page(statistics(SAMPLES) | more, "preferences.jsonl", prompt, 0.15, 0.5)
    for part in ("`preferences.jsonl`", "`oracle`", prompt.version, "seed 3", "0.15", "< 0.5", "| skipped: repeated | 2 |"):
        assert part in text
    assert all(f"]({name})" in text for name in PLOTS)


@pytest.mark.parametrize("samples", [SAMPLES, SAMPLES[:2]], ids=["several", "one pair"])
def test_the_plots_are_pictures_and_always_the_same(tmp_path: Path, samples: list[Sample]) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        plot(samples, tmp_path / folder)
    for name in PLOTS:
        raw = (tmp_path / "one" / name).read_bytes()
        assert ElementTree.fromstring(raw).tag.endswith("svg")
        assert raw == (tmp_path / "two" / name).read_bytes()
