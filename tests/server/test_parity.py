"""The same answer reads the same on every surface, streamed or not, whoever reads it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes import readers
from tests.fakes.base import ANSWER, DONE, HEAD, USAGE, FakeBase
from tests.fakes.http import serving
from tests.fakes.policies import KEY, policy
from tests.fakes.proxy import Starter
from tests.fakes.readers import Ask, Place, Read, Reader
from tests.fakes.responses import ResponsesSurface, known_events
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import (
    CALLS,
    CALLS_ONLY,
    CODE,
    CUT,
    FUTURE,
    JSON,
    JSON_ANSWER,
    LONG,
    LONG_ANSWER,
    REFUSES,
    SUMMARY,
    TABLE,
    THINKS,
    TOOLS,
    Says,
)
from visa_proxy.server.components import Instruments

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),  # LiteLLM's own models
]


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
    "thinks": Case(Ask(), (THINKS,), (thrilled(THINKS.text or ""),)),
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


def alike(one: Any, other: Any) -> bool:
    """Whether two `visa` objects say the same: times differ from run to run, measured values in their last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = (one.keys() | other.keys()) - {"timings_ms"}
        return all(name in one and name in other and alike(one[name], other[name]) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return abs(one - other) < 1e-3 if isinstance(one, float) and isinstance(other, float) else bool(one == other)


def called(read: Read) -> list[tuple[str, str, Any]]:
    return [(name, function, json.loads(arguments)) for name, function, arguments in read.calls]


@dataclass
class Stage:
    """A base, a rewriter, and a proxy before them for every policy; all tests here share it, because starting one takes time."""

    base: FakeBase
    rewriter: FakeRewriter
    places: dict[str, Place]
    """By the name of the policy: full, window, fields-full, fields-window; "" is the base itself."""

    def says(self, *says: Says, future: bool = False) -> None:
        """What the base will say; nothing was asked before."""
        self.base.says, self.base.future = list(says), future
        self.rewriter.asked.clear()


POLICIES = {
    "full": "{streaming: full, retries: 0}",
    "window": "{streaming: window, retries: 0}",
    "fields-full": "{streaming: full, retries: 0, json_fields: [/summary]}",
    "fields-window": "{streaming: window, retries: 0, json_fields: [/summary]}",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, instruments: Instruments) -> AsyncIterator[Stage]:
    base, rewriter = FakeBase(), FakeRewriter()
    async with contextlib.AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(serving(base.app())) + "/v1"
        rewriter_url = await stack.enter_async_context(serving(rewriter.app())) + "/v1"
        places = {"": Place(base_url, KEY)}
        for name, shield in POLICIES.items():
            start = await stack.enter_async_context(Starter(tmp_path_factory.mktemp(name)))
            proxy = await start(base_url, rewriter_url, instruments=instruments, text=policy(shield=shield))
            places[name] = Place(f"{proxy.url}/v1", KEY)
        yield Stage(base, rewriter, places)


@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])
async def test_the_base_itself(stage: Stage, way: Way) -> None:
    """What a reader makes of the base's answers without us: a test of the fakes, and the measure for the rest."""
    case = CASES["n2" if way.surface == "completions" else "tools"]
    stage.says(*case.says, future=way.read in (readers.chat_whole, readers.responses_accumulated))
    read = await way.read(stage.places[""], case.ask)
    assert read.texts == [each.text for each in case.says]
    assert called(read) == case.called


@pytest.mark.parametrize("says", [Says(), TOOLS, THINKS, REFUSES, CUT], ids=["plain", "tools", "thinks", "refuses", "cut"])
@pytest.mark.parametrize("background", [False, True])
async def test_the_bases_events_have_every_field_of_the_api(says: Says, background: bool) -> None:
    answer = ResponsesSurface().create({"background": background, "stream": True}, [says], future=False)
    assert isinstance(answer, list)
    events = [json.loads(frame.partition(b"data: ")[2]) for frame in answer]
    assert [known_events().validate_python(event).sequence_number for event in events] == list(range(len(events)))
    assert events[-1]["type"] == ("response.incomplete" if says.cut else "response.completed")


def mode(case: Case, way: Way, rewriting: str) -> str:
    """JSON that a request declares is relayed; completions have no way to declare it, so there it shows in the answer."""
    return "passthrough" if case.ask.json and way.surface != "completions" else rewriting


@matrix()
async def test_rewritten_as_a_whole(stage: Stage, case: Case, way: Way) -> None:
    stage.says(*case.says)
    read = await way.read(stage.places["full"], case.ask)
    assert read.texts == list(case.texts)
    assert called(read) == case.called
    if read.headers:
        assert read.status == case.status
        assert read.headers.get("x-visa-stream-mode") == (mode(case, way, "full") if way.stream else None)


@matrix(stream=True)
async def test_rewritten_in_windows(stage: Stage, case: Case, way: Way) -> None:
    """Each reader against the plainest one: the same windows, the same texts, the same report."""
    stage.says(*case.says)
    plainest = await readers.chat_chunks(stage.places["window"], case.ask)
    read = await way.read(stage.places["window"], case.ask)
    assert read.texts == plainest.texts
    assert called(read) == called(plainest) == case.called
    if read.headers:
        assert read.headers["x-visa-stream-mode"] == mode(case, way, "window")
        assert read.status == plainest.status == case.status
    if read.visa and plainest.visa:
        assert alike(read.visa, plainest.visa), (read.visa, plainest.visa)


@pytest.mark.parametrize("name", ["chat-chunks", "completions-chunks", "responses-accumulated"])
async def test_windows_are_rewritten_by_themselves_and_blocks_left_alone(stage: Stage, name: str) -> None:
    stage.says(LONG)
    read = await WAYS[name].read(stage.places["window"], Ask())
    assert read.visa is not None
    windows = read.visa["windows"]
    assert windows["total"] == sum(count for status, count in windows.items() if status != "total") >= 4
    assert windows["adapted"] == read.texts[0].count("For the thrill of it, ") >= 2
    assert CODE in read.texts[0]
    assert TABLE in read.texts[0]
    asked = len(stage.rewriter.asked)
    assert asked >= windows["adapted"]
    assert read.visa["usage"] == {
        "candidates": asked,
        "prompt_tokens": 100 * asked,
        "completion_tokens": 40 * asked,
        "total_tokens": 140 * asked,
    }


@pytest.mark.parametrize("surface", ["chat", "completions", "responses"])
async def test_the_first_windows_leave_while_the_base_still_speaks(stage: Stage, surface: str) -> None:
    """The base does not go on before a client has read something rewritten: whoever collects first waits in vain."""
    stage.says(LONG)
    stage.base.hold = asyncio.Event()
    place = stage.places["window"]
    path = {"chat": "chat/completions"}.get(surface, surface)
    body = {**getattr(Ask(), surface)(), "stream": True}
    raw = b""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
            http.post(f"{place.url}/{path}", json=body, headers={"Authorization": f"Bearer {place.key}"}) as got,
        ):
            async for part in got.content.iter_any():
                raw += part
                if b"thrill" in raw:
                    stage.base.hold.set()
    finally:
        stage.base.hold = None
    assert b'"adapted"' in raw


@pytest.mark.parametrize("streaming", ["full", "window"])
@pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items() if way.surface != "completions"])
async def test_named_fields_of_json_are_rewritten(stage: Stage, way: Way, streaming: str) -> None:
    stage.says(JSON)
    read = await way.read(stage.places[f"fields-{streaming}"], Ask(json=True))
    assert read.texts == [JSON_ANSWER.replace(SUMMARY, thrilled(SUMMARY))]
    if read.headers:
        assert read.status == "adapted"
        assert read.headers.get("x-visa-stream-mode") == ("full" if way.stream else None)


@pytest.mark.parametrize(("says", "status"), [(CALLS_ONLY, "skipped:tool-calls"), (REFUSES, "skipped:refusal")])
@pytest.mark.parametrize("name", ["chat", "chat-accumulated", "chat-chunks", "responses", "responses-accumulated"])
@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_answers_without_text_are_left_alone(stage: Stage, says: Says, status: str, name: str, streaming: str) -> None:
    stage.says(says)
    read = await WAYS[name].read(stage.places[streaming], Ask(tools=True))
    assert read.calls == [(call.id, call.name, call.arguments) for call in says.calls]
    assert (read.texts, read.status) == ([""], status)
    assert not stage.rewriter.asked


@pytest.mark.parametrize("name", ["chat", "chat-accumulated", "chat-chunks", "responses", "responses-accumulated"])
@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_tool_calls_beside_text_stay_byte_for_byte(stage: Stage, name: str, streaming: str) -> None:
    stage.says(TOOLS)
    read = await WAYS[name].read(stage.places[streaming], Ask(tools=True))
    assert read.calls == [(call.id, call.name, call.arguments) for call in CALLS]
    assert (read.texts, read.status) == ([thrilled(TOOLS.text or "")], "adapted")


@pytest.mark.parametrize("streaming", ["full", "window"])
async def test_chunks_keep_what_the_base_put_on_them(stage: Stage, streaming: str) -> None:
    """Chat: ids, role, thoughts, finish reason, usage and unknown fields; `visa` rides on the last chunk."""
    stage.says(THINKS, future=True)
    place = stage.places[streaming]
    body = {**Ask().chat(), "stream": True, "stream_options": {"include_usage": True}}
    headers = {"Authorization": f"Bearer {place.key}"}
    async with aiohttp.ClientSession() as http, http.post(f"{place.url}/chat/completions", json=body, headers=headers) as got:
        raw = await got.read()
    assert raw.endswith(DONE)
    chunks = [json.loads(each.removeprefix(b"data: ")) for each in raw.removesuffix(DONE).split(b"\n\n") if each]
    assert all({name: each[name] for name in HEAD} == HEAD and each["x_future"] == FUTURE for each in chunks)
    choices = [choice for each in chunks for choice in each["choices"]]
    assert all(choice["x_future"] == FUTURE for choice in choices)
    assert choices[0]["delta"]["role"] == "assistant"
    kinds = [name for choice in choices for name in ("reasoning_content", "content") if choice["delta"].get(name)]
    assert kinds == sorted(kinds, reverse=True)
    assert "".join(choice["delta"].get("reasoning_content") or "" for choice in choices) == THINKS.reasoning
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert choices[-1]["finish_reason"] == "stop"
    assert [each["usage"] for each in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1]["choices"], {**chunks[-1]["usage"], **USAGE}) == ([], chunks[-1]["usage"])
    assert ["visa" in each for each in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["visa"]["status"] == "adapted"
