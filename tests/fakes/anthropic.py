"""A model behind Anthropic's Messages API: another wire format than OpenAI's."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from tests.fakes.base import Answer, stream
from tests.fakes.said import ANSWER, Json, pieces


def messages(text: str = ANSWER, *, hold: asyncio.Event | None = None, cut: int | None = None) -> Answer:
    """Answers with `text`, streamed word by word where that is asked for.

    `hold`: half of a stream waits for it, ten seconds at most. `cut`: how many events of a stream are sent.
    """

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        asked = json.loads(body)
        if request.path != "/v1/messages" or request.headers.get("x-api-key") is None:
            return web.json_response(error("authentication_error", "No key."), status=401)
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_sequence": None}
        if not asked.get("stream"):
            usage = {"input_tokens": 11, "output_tokens": 22}
            content = [{"type": "text", "text": text}]
            return web.json_response({**head, "content": content, "stop_reason": "end_turn", "usage": usage})
        return await stream(request, *[_frame(each) for each in events(head, text)][:cut], hold=hold)

    return answer


def events(head: Json, text: str) -> list[Json]:
    """The events of a streamed message."""
    start = {**head, "content": [], "stop_reason": None, "usage": {"input_tokens": 11, "output_tokens": 1}}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 22}},
        {"type": "message_stop"},
    ]


def error(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _frame(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
