"""Which metrics and labels a PromQL expression speaks of, as a real parser reads it, and which a scraped page has."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, set[str]]
"""Labels by metric, as a query names it."""

SCRAPER: Final = {"job", "instance"}
"""Labels that Prometheus itself adds, as it adds the metric `up`."""


def named(expr: str) -> Labels:
    """Each metric of `expr` with the labels that matchers on it, and aggregations over it, name. Raises ValueError."""
    found: Labels = defaultdict(set)
    grouping: list[set[str]] = []

    def enter(node: promql.Expr) -> None:
        if isinstance(node, promql.AggregateExpr):
            grouping.append(set(node.modifier.labels) if node.modifier else set())
        # A matrix selector is no node with children: its vector selector is asked for.
        selector = node.vector_selector if isinstance(node, promql.MatrixSelector) else node
        if isinstance(selector, promql.VectorSelector):
            assert selector.name, f"a selector without a metric: {expr}"
            found[selector.name] |= {matcher.name for matcher in selector.matchers.matchers}.union(*grouping)

    def leave(node: promql.Expr) -> None:
        if isinstance(node, promql.AggregateExpr):
            grouping.pop()

    promql.walk(promql.parse(expr), enter, leave)
    assert found, f"no metric: {expr}"
    return dict(found)


def exported(page: str) -> Labels:
    """Each metric of a scraped page with its labels, as queries name it; those that nothing was counted in yet have none."""
    found: Labels = {"up": set(SCRAPER)}
    for family in text_string_to_metric_families(page):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        for suffix in suffixes:
            found[family.name + suffix] = set(SCRAPER)
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, set(SCRAPER)).update(sample.labels)
    return found


def unknown(expr: str, known: Labels) -> list[str]:
    """What `expr` names and `known` does not have."""
    problems = []
    for metric, labels in named(expr).items():
        if metric not in known:
            problems.append(f"no metric {metric}: {expr}")
        else:
            problems += [f"{metric} has no label {label}: {expr}" for label in sorted(labels - known[metric])]
    return problems
