"""Rows out of a real store, in pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments.made import DAY, START, keep, row
from visa_proxy.errors import ConfigError, RequestError
from visa_proxy.experiments import collect as module
from visa_proxy.experiments.collect import collect
from visa_proxy.store.read import Reader

LEVELS = {"security": 0.5}


@pytest.fixture
def url(tmp_path: Path) -> str:
    # Ten at each moment: a page may end amid them.
    rows = [row(i, "ab"[i % 2], day=i // 10, score=0.1, request_id=f"r{i}", before=LEVELS, after=LEVELS) for i in range(95)]
    return keep(
        f"sqlite:///{tmp_path / 'visa.db'}", [*rows, row(1, "a", tenant="other"), row(1, "a", experiment="length", day=0.25)]
    )


@pytest.mark.parametrize("page", [11, 12, 20, 95, 96, 1000])
def test_every_row_comes_once_whatever_the_pages(url: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", page)
    heard: list[int] = []
    with Reader(url) as reader:
        found = collect(reader, "acme", "voice", read=heard.append)
    assert sorted(each.exposure.request_id for each in found) == sorted(f"r{i}" for i in range(95))
    assert all(each.feedback is not None and each.exposure.before is None for each in found)
    assert heard == sorted(heard) and bool(heard) == (page <= 95)


def test_a_time_is_asked_for(url: str) -> None:
    with Reader(url) as reader:
        found = collect(reader, "acme", "voice", since=START + 2 * DAY, until=START + 4 * DAY)
    assert {each.exposure.at for each in found} == {START + 2 * DAY, START + 3 * DAY} and len(found) == 20


def test_what_would_not_fit_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 15)
    monkeypatch.setattr(module, "MAX_ROWS", 30)
    with Reader(url) as reader, pytest.raises(RequestError, match="more than 30 requests; give --since"):
        collect(reader, "acme", "voice")
    monkeypatch.setattr(module, "PAGE", 5)
    with Reader(url) as reader, pytest.raises(RequestError, match="have the same time"):
        collect(reader, "acme", "voice")


def test_a_store_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with Reader(f"sqlite:///{tmp_path / 'none.db'}") as reader, pytest.raises(ConfigError, match="there is no file"):
        collect(reader, "acme", "voice")
