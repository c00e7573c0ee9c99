"""A report in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from visa_proxy.experiments.figures import Report
from visa_proxy.experiments.page import Table, sections
from visa_proxy.yaml_problems import visible


def markdown(report: Report, plots: Mapping[str, str] | None = None) -> str:
    """The page; `plots` says which file holds which plot, for links that are relative to the page."""
    lines: list[str] = []
    for i, section in enumerate(sections(report)):
        lines += [f"{'#' if i == 0 else '##'} {_text(section.title)}", ""]
        for paragraph in section.text:
            lines += [_text(paragraph), ""]
        if section.table is not None:
            lines += [*_table(section.table), ""]
        for name in section.plots:
            if plots and name in plots:
                lines += [f"![{name}]({plots[name]})", ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    return [_row(table.header), "|" + "---|" * len(table.header), *map(_row, table.rows)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _text(text: str) -> str:
    """Names come from the store: on one line, without control characters and without markup."""
    return re.sub(r"[\\`*_\[]|<(?=[A-Za-z/!?])", lambda found: "\\" + found[0], visible(text))
