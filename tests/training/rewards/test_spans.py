"""Verbatim spans are looked for whole and in order."""

from __future__ import annotations

import pytest

from visa_proxy.shield.preserve import protect
from visa_proxy.training.rewards.spans import kept


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Take 10 g and 20 g to Acme.", 3),
        ("Take 20 g and 10 g to Acme.", 2),
        ("Take 10 g to Acme.", 2),
        ("Take 110 g and 200 g.", 0),
        ("", 0),
    ],
)
def test_spans_are_counted_whole_and_in_order(text: str, found: int) -> None:
    spans = protect("Take 10 g and 20 g to Acme.").spans
    assert len(spans) == 3 and kept(spans, text) == found


def test_glossary_terms_are_spans() -> None:
    assert kept(protect("Use the trail pro.", glossary=["trail pro"]).spans, "Use the trail pro!") == 1


def test_nothing_to_keep() -> None:
    assert kept((), "Take 10 g.") == 0
