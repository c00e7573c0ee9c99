"""A detector or translator behind an endpoint: a server that answers by rule and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.base import Answer
from tests.fakes.http import serving
from tests.fakes.rewriter import reply
from visa_proxy.errors import InstrumentError
from visa_proxy.llm.http import HttpEndpoint, new_session

Json = dict[str, Any]
KEY = "sk-hush-of-the-instrument"


@dataclass
class FakeInstrument:
    """Replace `says` for what a chat model writes, one text after the other (the last again and again), or `answer` for all else."""

    url: str = ""
    says: list[str] = field(default_factory=list)
    answer: Answer | None = None
    asked: list[Json] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """The Authorization header of each request."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.asked.append(json.loads(raw))
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization"))
        if self.answer is not None:
            return await self.answer(request, raw)
        return web.json_response(reply(self.says[min(len(self.asked), len(self.says)) - 1]))

    @property
    def system(self) -> str:
        """Of the last request."""
        return str(self.asked[-1]["messages"][0]["content"])

    @property
    def user(self) -> str:
        """Of the last request."""
        return str(self.asked[-1]["messages"][1]["content"])


@asynccontextmanager
async def instrument_server() -> AsyncIterator[FakeInstrument]:
    """A running one; `url` has no /v1."""
    fake = FakeInstrument()
    async with serving(fake.app()) as url:
        fake.url = url
        yield fake


@asynccontextmanager
async def endpoint_at(url: str, *, timeout_s: float = 5.0, name: str = "detector") -> AsyncIterator[HttpEndpoint]:
    """An endpoint with a key, and a session of its own."""
    async with new_session() as session:
        yield HttpEndpoint(session, url, api_key=KEY, timeout_s=timeout_s, name=name)


def one_level(names: tuple[str, ...], **levels: float) -> dict[str, float]:
    """Those levels, and 0 for the others."""
    return {**dict.fromkeys(names, 0), **levels}


def completion(text: Any = None, *, finish: str = "stop", **message: Any) -> Json:
    """A chat completion with what a message may hold beside its text."""
    made = reply(text, finish)
    made["choices"][0]["message"] |= message
    return made


def refused(error: pytest.ExceptionInfo[InstrumentError], *secrets: str) -> InstrumentError:
    """The error, in which none of `secrets`, and no key, is to be read."""
    for secret in (KEY, *secrets):
        assert secret not in str(error.value)
    return error.value
