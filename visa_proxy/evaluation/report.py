"""report.md and its plots: tables 1 and 5 of the paper in kind, intervals, paired tests, errors. The same rows make the same bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from visa_proxy.errors import ConfigError
from visa_proxy.evaluation import collect, metrics, plots
from visa_proxy.evaluation.cases import Case, space
from visa_proxy.evaluation.metrics import TITLES, Measured
from visa_proxy.evaluation.rows import Row
from visa_proxy.evaluation.stats import ROUNDS, Bootstrap, Estimate, Ratio
from visa_proxy.training.rewards.bounds import Bounds

REPORT: Final = "report.md"
TABLE_1: Final = ("consistency", "weighted", "forward", "backward", "l2", "cosine")
MORE: Final = (
    "success",
    "paper",
    "score",
    "faulty",
    "spans",
    "length",
    "drift",
    "changed",
    "deviation",
    "lexicon",
    "lexicon_other",
)
TESTED: Final = ("success", "paper", "score", "consistency", "cosine", "l2", "deviation", "spans", "drift", "lexicon")


@dataclass(frozen=True)
class About:
    """What the report says of how it came about."""

    cases: str
    """Which file."""
    judge: Sequence[str]
    """Lines about who judged."""
    against: str | None = None
    """The system that the others are tested against."""
    bounds: Bounds = field(default_factory=Bounds)
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """One system, measured."""

    name: str
    spec: str
    rows: Sequence[Row]
    measured: Measured
    figures: Mapping[str, Ratio]
    surprise: Ratio | None


def results(cases: Sequence[Case], rows: Mapping[str, tuple[str, Sequence[Row]]], bounds: Bounds) -> list[Result]:
    """`rows`: by name, the spec and a row for each case."""
    found = []
    for name, (spec, each) in rows.items():
        measured = collect.measured(cases, each)
        found.append(Result(name, spec, each, measured, metrics.figures(measured, bounds), collect.surprise(each)))
    return found


def write(folder: Path, cases: Sequence[Case], found: Sequence[Result], about: About) -> None:
    """The page and its plots, each of which appears when it is whole. Raises ConfigError when they cannot be written."""
    bootstrap = Bootstrap([case.topic for case in cases], about.seed)
    try:
        drawn = plots.draw(folder, found, bootstrap)
        part = folder / f"{REPORT}.part"
        part.write_text(page(cases, found, about, bootstrap, drawn), encoding="utf-8")
        part.replace(folder / REPORT)
    except OSError as error:
        raise ConfigError([f"{folder}: cannot write to it: {error.strerror}"]) from error


def page(cases: Sequence[Case], found: Sequence[Result], about: About, bootstrap: Bootstrap, drawn: Sequence[str]) -> str:
    """`drawn`: the names of the plots."""
    topics = len({case.topic for case in cases})
    lines = [
        "# Rewriters, compared",
        "",
        f"Written by `visa-proxy eval rewrite`: {len(cases)} cases on {topics} topics ({about.cases}). Intervals are 95 %, from {ROUNDS}",
        f"bootstrap draws of whole topics (seed {about.seed}).",
        "",
        *about.judge,
        "",
        *tables(found, about, bootstrap),
        *tests(found, about, bootstrap),
        *_failures(found),
        *(line for name in drawn for line in (f"![{name.removesuffix('.svg')}]({name})", "")),
        *NOTES,
    ]
    return "\n".join(lines) + "\n"


def tables(found: Sequence[Result], about: About, bootstrap: Bootstrap) -> list[str]:
    """Who answered, all figures, and what a success is; ends with an empty line."""
    return [
        *table(["system", "what", "cases", "answered", "errors"], [_who(each) for each in found]),
        "",
        "## Consistency and values (table 1)",
        "",
        *table(["system", *(f"{_title(n)} | std" for n in TABLE_1)], [_first(each, bootstrap) for each in found]),
        "",
        "## Joint success and more",
        "",
        *_bounds(about.bounds),
        "",
        *_second(found, bootstrap),
        "",
        "## Deviation by value (table 5)",
        "",
        *table(["system", *space().names, "MAD"], [_deviations(each) for each in found]),
        "",
    ]


NOTES: Final = """\
## What the figures are

- consistency: the weaker direction of entailment, 0 where a number, name, URL, date or negation differs. Forward: the rewrite entails
  the original (nothing lost); backward: the original entails the rewrite (nothing added). The paper's weights: (2 · forward + backward) / 3,
  as in its tables 1 and 5.
- value L2, cosine: of the text's values as the judge measures them, and the target v*. MAD: mean |v' − v*| over the ten values.
- joint success rates: of all cases; one that ended in an error is no success. Every other figure is over the cases with an answer.
- score: min(1, consistency / its bound) × (1 + cosine) / 2, 0 for a faulty form and for the answer itself. Faulty: empty, repeated,
  leaked (something of the prompt in it), listed (values named), pasted (their words, or a bare list), layout (other items or headings than
  the answer), cut (no end), short (less than half) or long (more than twice).
- spans preserved: code, URLs, numbers, quotations, names and glossary terms of the answer that stand in the text whole and in their order.
- length ratio: characters of the text by those of the answer. Share changed: texts whose words are not those of the answer.
- collateral drift: Σ |v' − v| over the values that Δv does not name, by Σ (|v − v*| − |v' − v*|) over those that it names; both sums over all
  cases with an answer. – where that gain is not above 0.
- lexicon: words of a value's list per sentence, more or fewer as asked (asked), and either way for the values not asked for (others).
- p: two-sided, from the paired bootstrap; not corrected for the number of tests.""".split("\n")


def _bounds(bounds: Bounds) -> list[str]:
    """What a success is."""
    return [
        f"Joint success: value cosine ≥ {bounds.value:g}, consistency ≥ {bounds.consistency:g}, L2 to the target at least {bounds.nearer:g} "
        "less than that of the answer,",
        "every verbatim span preserved, and another text than the answer, in the form of one. By the paper's bounds: "
        f"L2 ≤ {metrics.PAPER_L2:g}, and",
        f"consistency by its weights ≥ {metrics.PAPER_CONSISTENCY:g}, as its table 5 lets one recover them.",
    ]


def _title(name: str) -> str:
    return " ".join(filter(None, TITLES[name]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown; a head with " | " in it is one for several columns."""
    columns = "".join("---|" for _ in " | ".join(head).split(" | "))
    return [f"| {' | '.join(head)} |", f"|{columns}", *(f"| {' | '.join(row)} |" for row in rows)]


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def shown(found: Estimate, digits: int = 3) -> str:
    """The figure with its interval; – where there is none."""
    if not math.isfinite(found.value):
        return "–"
    between = f" [{_number(found.low, digits)}, {_number(found.high, digits)}]" if math.isfinite(found.low) else ""
    return _number(found.value, digits) + between


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _who(each: Result) -> list[str]:
    count, answered = len(each.rows), int(each.measured.answered.sum())
    return [each.name, f"`{_escaped(each.spec)}`", str(count), str(answered), str(count - answered)]


def _first(each: Result, bootstrap: Bootstrap) -> list[str]:
    cells = [each.name]
    for name in TABLE_1:
        ratio = each.figures[name]
        cells += [shown(bootstrap.estimate(ratio)), _number(metrics.spread(ratio))]
    return cells


def _second(found: Sequence[Result], bootstrap: Bootstrap) -> list[str]:
    names = [name for name in MORE if all(name in each.figures for each in found)]
    fluent = any(each.surprise is not None for each in found)
    rows = []
    for each in found:
        cells = [each.name, *(shown(bootstrap.estimate(each.figures[name])) for name in names)]
        rows.append([*cells, _perplexity(each.surprise, bootstrap)] if fluent else cells)
    lines = table(["system", *map(_title, names), *(["perplexity ↓"] if fluent else [])], rows)
    if fluent:
        answers = next((s for each in found if (s := collect.surprise(each.rows, "before")) is not None), None)
        lines += ["", f"The answers themselves have a perplexity of {_perplexity(answers, bootstrap)}."]
    return lines


def _perplexity(ratio: Ratio | None, bootstrap: Bootstrap) -> str:
    if ratio is None:
        return "–"
    found = bootstrap.estimate(ratio)
    return shown(Estimate(*(math.exp(v) for v in (found.value, found.low, found.high))), 1)


def _deviations(each: Result) -> list[str]:
    off = metrics.deviations(each.measured)
    return [each.name, *map(_number, off), _number(float(np.mean(off)))]


def tests(found: Sequence[Result], about: About, bootstrap: Bootstrap) -> list[str]:
    """Everybody else against `about.against`; ends with an empty line. Nothing where that system is not among them."""
    theirs = next((each for each in found if each.name == about.against), None)
    if theirs is None:
        return []
    names = [name for name in TESTED if all(name in each.figures for each in found)]
    rows = []
    for each in found:
        if each is theirs:
            continue
        for name in names:
            test = bootstrap.difference(each.figures[name], theirs.figures[name])
            rows.append([each.name, _title(name), shown(test), _number(test.p, 4)])
    return [
        f"## Paired tests against {theirs.name}",
        "",
        f"System less {theirs.name}, over the cases that both answered (joint success: over all).",
        "",
        *table(["system", "figure", "difference", "p"], rows),
        "",
    ]


def _failures(found: Sequence[Result]) -> list[str]:
    rows = []
    for each in found:
        errors = Counter(str(row["error"]) for row in each.rows if "error" in row)
        faults = Counter(fault for row in each.rows for fault in str(row.get("fault", "")).split())
        statuses = Counter(str(row["status"]) for row in each.rows if row.get("status"))
        rows += [[each.name, _escaped(f"error: {reason}"), str(count)] for reason, count in sorted(errors.items())]
        rows += [[each.name, f"form: {fault}", str(count)] for fault, count in sorted(faults.items())]
        rows += [[each.name, f"`{_escaped(status)}`", str(count)] for status, count in sorted(statuses.items())]
    if not rows:
        return ["No call failed.", ""]
    return ["## Errors, faulty forms, and what the shield did", "", *table(["system", "what", "cases"], rows), ""]
