"""A report as one HTML file that needs nothing else: styles and plots are in it, and no script."""

from __future__ import annotations

from html import escape
from typing import Final

from visa_proxy.experiments.figures import Report
from visa_proxy.experiments.page import Section, Table, sections
from visa_proxy.experiments.plots import PLOTS, draw
from visa_proxy.yaml_problems import visible

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top; }
figure { margin: 1rem 0; }
figure svg { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
.cautions { border-left: 4px solid #d55e00; padding-left: 1rem; }
"""


def html(report: Report) -> str:
    """The page. Raises MissingExtra without matplotlib."""
    parts = sections(report)
    body = "\n".join(_section(section, report, first=section is parts[0]) for section in parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(parts[0].title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, report: Report, *, first: bool) -> str:
    level = 1 if first else 2
    lines = [
        f"<section{' class=cautions' if section.title == 'Cautions' else ''}>",
        f"<h{level}>{_text(section.title)}</h{level}>",
    ]
    lines += [f"<p>{_text(paragraph)}</p>" for paragraph in section.text]
    if section.table is not None:
        lines.append(_table(section.table, _text(section.title)))
    for name in section.plots:
        picture, title = draw(name, report), _text(PLOTS[name])
        if picture:
            lines.append(f'<figure role="img" aria-label="{title}">{picture}<figcaption>{title}</figcaption></figure>')
    return "\n".join([*lines, "</section>"])


def _table(table: Table, label: str) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    opened = f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>'
    return f"{opened}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"


def _text(text: str) -> str:
    """Names come from the store."""
    return escape(visible(text))
