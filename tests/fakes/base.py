"""A base model that answers by rule and remembers what it was asked."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.completions import prompts, text_chunks, text_completion
from tests.fakes.responses import ResponsesSurface
from tests.fakes.said import ANSWER as ANSWER
from tests.fakes.said import QUESTION as QUESTION
from tests.fakes.said import USAGE as USAGE
from tests.fakes.said import Json, Says, all_says, of_the_future, pieces

HEAD: Json = {"id": "chatcmpl-base-1", "created": 1_700_000_001, "model": "sample", "system_fingerprint": "fp_base"}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    """With query string, still percent-encoded."""
    headers: Sequence[tuple[str, str]]
    """Names in lower case."""
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


DONE = b"data: [DONE]\n\n"

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class FakeBase:
    """Replace `answer` for other behaviour, `texts` for other choices, or `says` for choices that are more than text."""

    url: str = ""
    texts: list[str] = field(default_factory=lambda: [ANSWER])
    """Of the choices, repeated up to the request's `n`."""
    says: list[Says] | None = None
    future: bool = False
    """Whether every object of an answer has a field that nobody knows yet."""
    pause_s: float = 0.0
    """Between two events of a stream."""
    hold: asyncio.Event | None = None
    """A stream waits for this when half of its events are out; at most ten seconds."""
    answer: Answer | None = None
    responses: ResponsesSurface = field(default_factory=ResponsesSurface)
    seen: list[Seen] = field(default_factory=list)
    running: int = 0
    gone: int = 0
    """Requests whose client went before they were answered."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        self.running += 1
        try:
            return await (self.answer or self._answer)(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if request.path == "/v1/models":
            model = {"id": "sample", "object": "model", "created": 1, "owned_by": "base", "max_model_len": 4096}
            return web.json_response({"object": "list", "data": [model]})
        if request.path.startswith("/v1/responses/"):
            return await self._sent(request, self.responses.stored(request))
        if request.path not in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
            return web.json_response({"path": request.raw_path})
        data = json.loads(body)
        if data.get("model") != "sample":
            error = {"message": "The model does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
            return web.json_response({"error": error}, status=404)
        said = all_says(self.texts if self.says is None else self.says)
        if request.path == "/v1/responses":
            return await self._sent(request, self.responses.create(data, said, future=self.future))
        said = list(itertools.islice(itertools.cycle(said), max(data.get("n") or 1, len(said))))
        if request.path == "/v1/completions":
            said = said * prompts(data.get("prompt"))
            return await self._reply(request, data, text_completion(*said), text_chunks(said, usage=_usage(data)))
        return await self._reply(request, data, completion(*said), chunks(said, usage=_usage(data)))

    async def _reply(self, request: web.Request, data: Json, whole: Json, parts: list[Json]) -> web.StreamResponse:
        if self.future:
            whole, parts = of_the_future(whole), of_the_future(parts)
        if not data.get("stream"):
            return web.json_response(whole)
        return await self._sent(request, [*[event(each) for each in parts], DONE])

    async def _sent(self, request: web.Request, answer: web.Response | list[bytes]) -> web.StreamResponse:
        """`answer`: whole, or the frames of a stream."""
        if isinstance(answer, web.Response):
            return answer
        return await stream(request, *answer, pause_s=self.pause_s, hold=self.hold)


def _usage(data: Json) -> bool:
    return bool((data.get("stream_options") or {}).get("include_usage"))


def completion(*texts: str | Says | None, **message: Any) -> Json:
    """A whole answer."""
    said = all_says(texts)
    choices = [
        {"index": i, "message": {**_message(each), **message}, "finish_reason": each.finish} for i, each in enumerate(said)
    ]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE, "x_extra": {"kept": True}}


def _message(said: Says) -> Json:
    message: Json = {"role": "assistant", "content": said.text}
    if said.reasoning is not None:
        message["reasoning_content"] = said.reasoning
    if said.refusal is not None:
        message["refusal"] = said.refusal
    if said.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.calls
        ]
    return message


def chunk(*choices: Json, **extra: Any) -> Json:
    return {**HEAD, "object": "chat.completion.chunk", "choices": list(choices), **extra}


def delta(index: int, finish: str | None = None, **content: Any) -> Json:
    return {"index": index, "delta": content, "finish_reason": finish}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def frames(texts: Sequence[str | Says], *, usage: bool = False) -> list[bytes]:
    """The SSE frames of a streamed answer, [DONE] included."""
    return [event(each) for each in chunks(texts, usage=usage)] + [DONE]


def chunks(texts: Sequence[str | Says], *, usage: bool = False) -> list[Json]:
    """The chunks of a streamed answer; the choices come word by word, in turn."""
    said = all_says(texts)
    found = [chunk(delta(i, role="assistant", content=None if each.text is None else "")) for i, each in enumerate(said)]
    deltas = [_deltas(each) for each in said]
    for position in range(max(map(len, deltas), default=0)):
        found += [chunk(delta(i, **each[position])) for i, each in enumerate(deltas) if position < len(each)]
    found += [chunk(delta(i, each.finish)) for i, each in enumerate(said)]
    return [{**each, "usage": None} for each in found] + [chunk(usage=USAGE)] if usage else found


def _deltas(said: Says) -> list[Json]:
    """One choice in pieces: what it thinks, says, refuses and calls."""
    found: list[Json] = [{"reasoning_content": piece} for piece in pieces(said.reasoning)]
    found += [{"content": piece} for piece in pieces(said.text)]
    found += [{"refusal": piece} for piece in pieces(said.refusal)]
    for i, call in enumerate(said.calls):
        opening = {"index": i, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        found.append({"tool_calls": [opening]})
        found += [{"tool_calls": [{"index": i, "function": {"arguments": piece}}]} for piece in pieces(call.arguments)]
    return found


async def stream(
    request: web.Request, *parts: bytes, pause_s: float = 0.0, hold: asyncio.Event | None = None
) -> web.StreamResponse:
    """Sends `parts` as one event stream."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for i, part in enumerate(parts):
        if hold is not None and i == len(parts) // 2:
            async with asyncio.timeout(10):
                await hold.wait()
        await response.write(part)
        await asyncio.sleep(pause_s)
    await response.write_eof()
    return response


def answers(body: bytes | Json, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer that is always the same."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(body=raw, status=status, headers={"Content-Type": "application/json", **(headers or {})})

    return answer


def streams(*parts: bytes, pause_s: float = 0.0) -> Answer:
    """A streamed answer that is always the same."""

    async def answer(request: web.Request, _: bytes) -> web.StreamResponse:
        return await stream(request, *parts, pause_s=pause_s)

    return answer


async def never(request: web.Request, _: bytes) -> web.StreamResponse:
    """Stalls before the first byte."""
    await asyncio.sleep(60)
    raise AssertionError("a minute is longer than any test")
