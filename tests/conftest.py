"""What every test may ask for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.base import FakeBase
from tests.fakes.http import serving
from tests.fakes.proxy import Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.detector.load import load_detector
from visa_proxy.facts.load import load_facts
from visa_proxy.server.components import Instruments
from visa_proxy.translator.load import load_translator


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each process that computes, children included: several of them with a pool each would spin for the same cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


LONG_FILES = (
    "test_train_instruments.py",
    "test_workers.py",
    "test_browser.py",
    "test_train_tuning.py",
    "test_eval.py",
    "test_kill.py",
    "test_litellm_proxy.py",
    "test_litellm_docs.py",
    "test_soak.py",
    "test_demo.py",
    "test_stream_property.py",
    "test_parity.py",
    "test_sft.py",
    "test_processes.py",
)
"""Those that take about a minute, the longest first: several processes end together when these come at the beginning."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; everything else, and what is in a file, stays in its order."""
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


@pytest.fixture(scope="session")
def instruments() -> Instruments:
    """The real detector, translator and fact analyzer, loaded once: it takes seconds."""
    return Instruments(load_detector(), load_translator(), load_facts())


@pytest.fixture
async def base() -> AsyncIterator[FakeBase]:
    """A base model that answers by rule; tests replace `base.answer`."""
    fake = FakeBase()
    async with serving(fake.app()) as url:
        fake.url = f"{url}/v1"
        yield fake


@pytest.fixture
async def rewriter() -> AsyncIterator[FakeRewriter]:
    """A rewriter that rewrites by rule; tests replace `rewriter.rule` or `rewriter.answer`."""
    fake = FakeRewriter()
    async with serving(fake.app()) as url:
        fake.url = f"{url}/v1"
        yield fake


@pytest.fixture
async def start(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Starter]:
    """`await start(base.url, …)`: the proxy on a port of its own, stopped when the test ends."""
    async with Starter(tmp_path_factory.mktemp("policies")) as starter:
        yield starter


@pytest.fixture
def short_keep_alive(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds between two keep-alive comments."""
    monkeypatch.setattr("visa_proxy.server.streaming.KEEP_ALIVE_S", 0.05)
    return 0.05
