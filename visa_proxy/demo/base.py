"""A sample base model: replays bundled answers over the OpenAI chat API, so that everything after it is real."""

from __future__ import annotations

import asyncio
import importlib.resources
import itertools
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.errors import NotFound, RequestError, VisaError, error_body
from visa_proxy.llm import sse

MODEL: Final = "sample"
MIN_SIMILARITY: Final = 0.58
"""Cosine between a question and the nearest known one, below which the model says that it does not know."""
MAX_QUESTIONS: Final = 20
"""Of one message; those after them go unanswered."""
_PIECE = re.compile(r"\s*\S+|\s+\Z")
_QUESTION_END = re.compile(r"(?<=\?)\s+")


@dataclass(frozen=True)
class Entry:
    """One bundled answer and the questions it answers."""

    id: str
    topic: str
    question: str
    paraphrases: tuple[str, ...]
    answer: str


def load_entries() -> list[Entry]:
    """The bundled questions and answers, in file order."""
    source = importlib.resources.files("visa_proxy.demo") / "data" / "answers.yaml"
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    return [
        Entry(entry["id"], entry["topic"], entry["question"], tuple(entry["paraphrases"]), entry["answer"].strip())
        for entry in data
    ]


def questions(message: str) -> list[str]:
    """The questions of a message, each with what was said before it; the message itself when it asks at most one."""
    found = [part for part in _QUESTION_END.split(message) if part.rstrip().endswith("?")]
    return found[:MAX_QUESTIONS] if len(found) > 1 else [message]


class SampleBase:
    """Finds the bundled answers to the questions of a message by what they mean."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self.entries = load_entries()
        self._owners = [i for i, entry in enumerate(self.entries) for _ in (entry.question, *entry.paraphrases)]
        self._known: np.ndarray[Any, np.dtype[np.float32]] | None = None

    async def answer(self, message: str) -> str:
        """The bundled answer to each question of `message`, a paragraph apart; an honest refusal where there is none."""
        if self._known is None:
            known = [text for entry in self.entries for text in (entry.question, *entry.paraphrases)]
            self._known = np.stack([encoded.pooled for encoded in await self._encoder.encode(known)])
        asked = np.stack([encoded.pooled for encoded in await self._encoder.encode(questions(message))])
        # Two questions may have one answer, which is then given once.
        return "\n\n".join(dict.fromkeys(self._best(scores) for scores in asked @ self._known.T))

    def _best(self, scores: np.ndarray[Any, np.dtype[np.float32]]) -> str:
        best = int(scores.argmax())
        return self.entries[self._owners[best]].answer if scores[best] >= MIN_SIMILARITY else self._refusal()

    def _refusal(self) -> str:
        topics = list(dict.fromkeys(entry.topic for entry in self.entries))
        return (
            f"I am a small sample model and I only know these topics: {', '.join(topics)}. "
            f'You can ask me, for example, "{self.entries[0].question}"'
        )


def create_base_app(base: SampleBase, *, tokens_per_s: float | None = None) -> Starlette:
    """The OpenAI chat API over `base`. `tokens_per_s` paces streamed answers; None sends them as fast as they are read."""
    numbers = itertools.count(1)

    async def models(request: Request) -> Response:
        model = {"id": MODEL, "object": "model", "created": 1_767_225_600, "owned_by": "visa-proxy"}
        return JSONResponse({"object": "list", "data": [model]})

    async def chat(request: Request) -> Response:
        body = _parse(await request.body())
        question = _question(body)
        text = await base.answer(question)
        count = body.get("n") or 1
        head = {"id": f"chatcmpl-sample-{next(numbers)}", "created": int(time.time()), "model": body["model"]}
        prompt, completion = len(_PIECE.findall(question)), len(_PIECE.findall(text)) * count
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if body.get("stream"):
            wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = _chunks(head, text, count, usage if wants_usage else None, tokens_per_s)
            return StreamingResponse(chunks, media_type="text/event-stream")
        choices = [{"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for i in range(count)]
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, VisaError)
        return JSONResponse(error_body(error), status_code=error.status)

    routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={VisaError: failed})


async def _chunks(
    head: dict[str, Any], text: str, count: int, usage: dict[str, int] | None, tokens_per_s: float | None
) -> AsyncIterator[bytes]:
    def chunk(choices: list[dict[str, Any]], **extra: Any) -> bytes:
        return sse.frame({**head, "object": "chat.completion.chunk", "choices": choices, **extra})

    def choice(index: int, delta: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": index, "delta": delta, "finish_reason": finish}]

    extra = {} if usage is None else {"usage": None}
    for i in range(count):
        yield chunk(choice(i, {"role": "assistant", "content": ""}), **extra)
    clock = asyncio.get_running_loop().time
    started = clock()
    for sent, piece in enumerate(_PIECE.findall(text), start=1):
        if tokens_per_s is not None:
            # By when each token is due: a pause per token would add up to a slower pace.
            await asyncio.sleep(max(0.0, started + sent / tokens_per_s - clock()))
        for i in range(count):
            yield chunk(choice(i, {"content": piece}), **extra)
    for i in range(count):
        yield chunk(choice(i, {}, "stop"), **extra)
    if usage is not None:
        yield chunk([], usage=usage)
    yield sse.DONE


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError("the request body must be a JSON object")
    if body.get("model") != MODEL:
        raise NotFound(
            f"the model {body.get('model')!r} does not exist; there is {MODEL!r}", param="model", code="model_not_found"
        )
    return body


def _question(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' must be a non-empty array", param="messages")
    content = next((m.get("content") for m in reversed(messages) if isinstance(m, dict) and m.get("role") == "user"), None)
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    if not isinstance(content, str) or not content.strip():
        raise RequestError("there is no user message with text", param="messages")
    return content
