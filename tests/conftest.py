"""What every test may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.fakes.base import FakeBase
from tests.fakes.http import serving
from tests.fakes.proxy import Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.encoder.minilm import SentenceEncoder


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    """The real sentence encoder, loaded once: it takes seconds."""
    return SentenceEncoder()


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
