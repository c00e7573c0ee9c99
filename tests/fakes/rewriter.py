"""A rewriter that rewrites by rule, behind the chat API that a real one has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.base import Answer

Json = dict[str, Any]
ASKED = "Answer to rewrite:\n"


def thrilled(text: str) -> str:
    """What a rewriter does to move an answer towards stimulation."""
    return f"For the thrill of it, {text[0].lower()}{text[1:]} Make it an exciting adventure."


@dataclass
class FakeRewriter:
    """Replace `rule` for other rewrites, or `answer` for other behaviour."""

    url: str = ""
    rule: Callable[[str], str] = thrilled
    answer: Answer | None = None
    asked: list[Json] = field(default_factory=list)
    gone: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        self.asked.append(body)
        try:
            if self.answer is not None:
                return await self.answer(request, raw)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        return web.json_response(reply(self.rule(asked_text(body))))


def asked_text(body: Json) -> str:
    """The text that the prompt asks to rewrite."""
    prompt: str = body["messages"][-1]["content"]
    return prompt.partition(ASKED)[2]


def reply(text: Any, finish: str = "stop") -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    return {"id": "rw", "object": "chat.completion", "created": 1, "model": "fake", "choices": [choice], "usage": usage}
