"""A base model that answers by rule and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]

ANSWER = (
    "Rinse the rice in cold water until the water runs clear. Bring a pot of water to a boil and add the rice. "
    "Let it simmer with the lid on for 15 minutes, as shown at https://example.org/rice. "
    "If the rice is still hard, add a little more water."
)
QUESTION = "How do I cook rice?"
USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
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


Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class FakeBase:
    """Replace `answer` for other behaviour, or `texts` for other choices."""

    url: str = ""
    texts: list[str] = field(default_factory=lambda: [ANSWER])
    answer: Answer | None = None
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
        if request.path != "/v1/chat/completions":
            return web.json_response({"path": request.raw_path})
        data = json.loads(body)
        if data.get("model") != "sample":
            error = {"message": "The model does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
            return web.json_response({"error": error}, status=404)
        texts = self.texts * (data.get("n") or 1)
        if data.get("stream"):
            usage = bool((data.get("stream_options") or {}).get("include_usage"))
            return await stream(request, *frames(texts, usage=usage))
        return web.json_response(completion(*texts))


def completion(*texts: str | None, **message: Any) -> Json:
    """A whole answer."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE, "x_extra": {"kept": True}}


def chunk(*choices: Json, **extra: Any) -> Json:
    return {**HEAD, "object": "chat.completion.chunk", "choices": list(choices), **extra}


def delta(index: int, finish: str | None = None, **content: Any) -> Json:
    return {"index": index, "delta": content, "finish_reason": finish}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def frames(texts: Sequence[str], *, usage: bool = False) -> list[bytes]:
    """The SSE frames of a streamed answer, [DONE] included; the choices come word by word, in turn."""
    chunks = [chunk(delta(i, role="assistant", content="")) for i in range(len(texts))]
    pieces = [[word + " " for word in text.split(" ")[:-1]] + [text.split(" ")[-1]] for text in texts]
    for position in range(max(len(words) for words in pieces)):
        chunks += [chunk(delta(i, content=words[position])) for i, words in enumerate(pieces) if position < len(words)]
    chunks += [chunk(delta(i, "stop")) for i in range(len(texts))]
    if usage:
        chunks = [{**each, "usage": None} for each in chunks] + [chunk(usage=USAGE)]
    return [event(each) for each in chunks] + [b"data: [DONE]\n\n"]


async def stream(request: web.Request, *parts: bytes, pause_s: float = 0.0) -> web.StreamResponse:
    """Sends `parts` as one event stream."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for part in parts:
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
