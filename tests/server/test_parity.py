"""The same answer reads the same on every surface, streamed or not, whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes import readers
from tests.fakes.base import ANSWER, FakeBase
from tests.fakes.policies import KEY, policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.readers import Ask, Place, Read, Reader
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import CALLS_ONLY, CODE, JSON, JSON_ANSWER, LONG, LONG_ANSWER, REFUSES, SUMMARY, TABLE, TOOLS, Says
from visa_proxy.encoder.minilm import SentenceEncoder


@dataclass(frozen=True)
class Case:
    """An answer, how it is asked for, and what is to become of it."""

    ask: Ask
    says: tuple[Says, ...]
    texts: tuple[str, ...]
    """Of the choices, rewritten as wholes."""
    status: str = "adapted"

    @property
    def called(self) -> list[tuple[str, str, Any]]:
        return [(call.id, call.name, json.loads(call.arguments)) for each in self.says for call in each.calls]


SECOND = "Add salt. Stir it well for 2 minutes."
CASES = {
    "plain": Case(Ask(), (Says(),), (thrilled(ANSWER),)),
    "n2": Case(Ask(n=2), (Says(), Says(SECOND)), (thrilled(ANSWER), thrilled(SECOND))),
    "tools": Case(Ask(tools=True), (TOOLS,), (thrilled(TOOLS.text or ""),)),
    "json": Case(Ask(json=True), (JSON,), (JSON.text or "",), "skipped:json"),
    "long": Case(Ask(), (LONG,), (thrilled(LONG_ANSWER),)),
}


@dataclass(frozen=True)
class Way:
    """A reader and what it reads."""

    surface: str
    stream: bool
    read: Reader
    one_choice: str = ""
    """Why it cannot read two choices, where it cannot."""


RESPONSES_N = "the Responses API has no n"
JOINED = "its stream joins the choices"
WAYS = {
    "chat": Way("chat", False, readers.chat_whole),
    "chat-accumulated": Way("chat", True, readers.chat_accumulated),
    "chat-chunks": Way("chat", True, readers.chat_chunks),
    "completions": Way("completions", False, readers.completions_whole),
    "completions-chunks": Way("completions", True, readers.completions_chunks),
    "responses": Way("responses", False, readers.responses_whole, RESPONSES_N),
    "responses-accumulated": Way("responses", True, readers.responses_accumulated, RESPONSES_N),
    "responses-deltas": Way("responses", True, readers.responses_deltas, RESPONSES_N),
    "langchain-invoke": Way("chat", False, readers.langchain_invoke(responses=False)),
    "langchain-stream": Way("chat", True, readers.langchain_stream(responses=False), JOINED),
    "langchain-astream": Way("chat", True, readers.langchain_astream(responses=False), JOINED),
    "langchain-responses-invoke": Way("responses", False, readers.langchain_invoke(responses=True), RESPONSES_N),
    "langchain-responses-stream": Way("responses", True, readers.langchain_stream(responses=True), RESPONSES_N),
    "langchain-responses-astream": Way("responses", True, readers.langchain_astream(responses=True), RESPONSES_N),
    "litellm": Way("chat", False, readers.litellm_completion),
    "litellm-async": Way("chat", False, readers.litellm_acompletion),
    "litellm-stream": Way("chat", True, readers.litellm_stream, JOINED),
    "litellm-astream": Way("chat", True, readers.litellm_astream, JOINED),
    "litellm-responses": Way("responses", False, readers.litellm_responses, RESPONSES_N),
    "litellm-responses-stream": Way("responses", True, readers.litellm_responses_stream, RESPONSES_N),
}


def matrix(*, stream: bool | None = None) -> Callable[[Any], Any]:
    """Every case read in every way; what an API does not have is skipped, with the reason."""
    cells = []
    for case_name, case in CASES.items():
        for way_name, way in WAYS.items():
            if stream is not None and way.stream is not stream:
                continue
            why = "the completions API has no tools" if case.ask.tools and way.surface == "completions" else ""
            why = why or (way.one_choice if case.ask.n > 1 else "")
            marks = [pytest.mark.skip(reason=why)] if why else []
            cells.append(pytest.param(case, way, id=f"{case_name}-{way_name}", marks=marks))
    return pytest.mark.parametrize(("case", "way"), cells)


def measured(read: Read) -> Any:
    """What `visa` says, but for the times: they differ from run to run."""
    return None if read.visa is None else _untimed(read.visa)


def _untimed(visa: Any) -> Any:
    if isinstance(visa, dict):
        return {key: _untimed(value) for key, value in visa.items() if key != "timings_ms"}
    return [_untimed(each) for each in visa] if isinstance(visa, list) else visa


def called(read: Read) -> list[tuple[str, str, Any]]:
    return [(name, function, json.loads(arguments)) for name, function, arguments in read.calls]


@matrix()
async def test_the_base_itself(base: FakeBase, case: Case, way: Way) -> None:
    """What the readers make of the base's answers without us: the measure for the rest."""
    base.says = list(case.says)
    read = await way.read(Place(base.url, KEY), case.ask)
    assert read.texts == [each.text for each in case.says]
    assert called(read) == case.called


@pytest.fixture
async def full(start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder) -> Place:
    shield = "{streaming: full, retries: 0}"
    return place(await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield)))


@pytest.fixture
async def windowed(start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder) -> Place:
    shield = "{streaming: window, retries: 0}"
    return place(await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield)))


def place(proxy: Running) -> Place:
    return Place(f"{proxy.url}/v1", KEY)


def mode(case: Case, way: Way, rewriting: str) -> str:
    """JSON that a request declares is relayed; completions have no way to declare it, so there it shows in the answer."""
    return "passthrough" if case.ask.json and way.surface != "completions" else rewriting


@matrix()
async def test_rewritten_as_a_whole(full: Place, base: FakeBase, case: Case, way: Way) -> None:
    base.says = list(case.says)
    read = await way.read(full, case.ask)
    assert read.texts == list(case.texts)
    assert called(read) == case.called
    if read.headers:
        assert read.status == case.status
        assert read.headers.get("x-visa-stream-mode") == (mode(case, way, "full") if way.stream else None)


@matrix(stream=True)
async def test_rewritten_in_windows(windowed: Place, base: FakeBase, case: Case, way: Way) -> None:
    """Each reader against the plainest one: the same windows, the same texts, the same report."""
    base.says = list(case.says)
    plainest = await readers.chat_chunks(windowed, case.ask)
    read = await way.read(windowed, case.ask)
    assert read.texts == plainest.texts
    assert called(read) == called(plainest) == case.called
    if read.headers:
        assert read.headers["x-visa-stream-mode"] == mode(case, way, "window")
        assert read.status == plainest.status == case.status
    if read.visa and plainest.visa:
        assert measured(read) == measured(plainest)


async def test_windows_are_rewritten_by_themselves_and_blocks_left_alone(windowed: Place, base: FakeBase) -> None:
    base.says = [LONG]
    read = await readers.chat_chunks(windowed, Ask())
    assert read.visa is not None
    windows = read.visa["windows"]
    assert windows["total"] == sum(count for status, count in windows.items() if status != "total") >= 4
    assert windows["adapted"] == read.texts[0].count("For the thrill of it, ") >= 2
    assert CODE in read.texts[0]
    assert TABLE in read.texts[0]


@pytest.mark.parametrize("streaming", ["full", "window"])
@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items() if way.surface != "completions"])
async def test_named_fields_of_json_are_rewritten(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, encoder: SentenceEncoder, way: Way, streaming: str
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0, json_fields: [/summary]}}"
    proxy = await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield))
    base.says = [JSON]
    read = await way.read(place(proxy), Ask(json=True))
    assert read.texts == [JSON_ANSWER.replace(SUMMARY, thrilled(SUMMARY))]
    if read.headers:
        assert read.status == "adapted"
        assert read.headers.get("x-visa-stream-mode") == ("full" if way.stream else None)


@pytest.mark.parametrize(("says", "status"), [(CALLS_ONLY, "skipped:tool-calls"), (REFUSES, "skipped:refusal")])
@pytest.mark.parametrize("name", ["chat", "chat-chunks", "responses", "responses-accumulated"])
@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_answers_without_text_are_left_alone(
    start: Starter,
    base: FakeBase,
    rewriter: FakeRewriter,
    encoder: SentenceEncoder,
    says: Says,
    status: str,
    name: str,
    streaming: str,
) -> None:
    shield = f"{{streaming: {streaming}, retries: 0}}"
    proxy = await start(base.url, rewriter.url, encoder=encoder, text=policy(shield=shield))
    base.says = [says]
    read = await WAYS[name].read(place(proxy), Ask(tools=True))
    assert read.calls == [(call.id, call.name, call.arguments) for call in says.calls]
    assert (read.texts, read.status) == ([""], status)
    assert not rewriter.asked
