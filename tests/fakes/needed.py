"""Libraries that some tests need, and that are loaded only when one of those runs: every process of the suite collects every file."""

from __future__ import annotations

import importlib.util

import pytest


def needs(library: str) -> pytest.MarkDecorator:
    """A mark: skipped where `library`, a top-level name, is not installed."""
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"{library} is not installed")
