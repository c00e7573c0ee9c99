"""The report: what it says, and that it says the same of the same rows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from tests.evaluation.samples import case, row
from visa_proxy.evaluation.plots import on_front
from visa_proxy.evaluation.report import About, Result, results, write
from visa_proxy.evaluation.rows import Row

CASES = [case(i, topic=f"topic {i % 5}", power=1.0) for i in range(20)]
GOOD: list[Row] = [row({}, {"power": 0.9}, 0.9, status="adapted") for _ in CASES]
POOR: list[Row] = [*(row({}, {"power": 0.1}, 0.8) for _ in CASES[:-2]), {"error": "timeout"}, {"error": "a|b"}]
PLOTS = ("pareto.svg", "deviations.svg", "success.svg")
ABOUT = About("some", ["Judge: ours."], against="poor")


def found() -> list[Result]:
    return results(CASES, {"good": ("shield", GOOD), "poor": ("rules:http://h/v1#m|n", POOR)}, ABOUT.bounds)


def test_the_report_has_tables_tests_errors_and_plots(tmp_path: Path) -> None:
    write(tmp_path, CASES, found(), ABOUT)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for part in (
        "(table 1)",
        "(table 5)",
        "Paired tests against poor",
        "Judge: ours.",
        "| poor | error: timeout | 1 |",
        "| good | `adapted` | 20 |",
    ):
        assert part in text
    assert "| poor | `rules:http://h/v1#m\\|n` | 20 | 18 | 2 |" in text
    assert "| good | 1.000 [1.000, 1.000] |" in text
    assert "| good | joint success rate ↑ | 1.000 [1.000, 1.000] | 0.0010 |" in text
    for name in PLOTS:
        assert f"({name})" in text
        ET.parse(tmp_path / name)
    assert not list(tmp_path.glob("*.part"))


def test_systems_with_a_size_are_plotted_by_it(tmp_path: Path) -> None:
    rows = {"sft@2M": ("model:a", POOR), "sft@6M": ("model:b", GOOD), "grpo@2M": ("model:c", GOOD), "echo": ("echo", POOR)}
    write(tmp_path, CASES, results(CASES, rows, ABOUT.bounds), ABOUT)
    assert "(sizes.svg)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    drawn = (tmp_path / "sizes.svg").read_text(encoding="utf-8")
    assert "<!-- sft -->" in drawn and "<!-- grpo -->" in drawn and "<!-- echo -->" not in drawn


def test_faulty_forms_are_counted(tmp_path: Path) -> None:
    faults = ["pasted cut"] * 2 + ["pasted"] * 3
    rows = [row({}, {"power": 0.9}, fault=faults[i] if i < 5 else "") for i in range(len(CASES))]
    write(tmp_path, CASES, results(CASES, {"a": ("echo", rows)}, ABOUT.bounds), About("some", []))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| a | form: pasted | 5 |" in text and "| a | form: cut | 2 |" in text and "| a | 0.750 [" in text


def test_every_row_of_a_table_has_its_columns(tmp_path: Path) -> None:
    write(tmp_path, CASES, found(), ABOUT)
    for table in (tmp_path / "report.md").read_text(encoding="utf-8").split("\n\n"):
        lines = [line.replace("\\|", "") for line in table.split("\n") if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, table


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, CASES, found(), ABOUT)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_nothing_but_errors_is_a_report_too(tmp_path: Path) -> None:
    bad = results(CASES, {"bad": ("echo", [{"error": "timeout"}] * len(CASES))}, ABOUT.bounds)
    write(tmp_path, CASES, bad, About("some", []))
    assert "| bad | – | – |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_words_and_perplexity_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    rows = [row({}, {"power": 0.9}) for _ in CASES]
    for each in rows:
        each["before"] |= {"words": [0.0] * 10, "nll": 10.0, "tokens": 10}
        each["after"] |= {"words": [0.5] * 10, "nll": 20.0, "tokens": 10}
    write(tmp_path, CASES, results(CASES, {"a": ("echo", rows)}, ABOUT.bounds), About("some", []))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "lexicon, asked ↑" in text and "| 7.4 [7.4, 7.4] |" in text and "have a perplexity of 2.7 [2.7, 2.7]" in text


def test_the_front_is_what_nothing_beats() -> None:
    assert on_front([0.1, 0.5, 0.5, 0.9], [0.9, 0.8, 0.7, 0.1]) == [0, 1, 3]
