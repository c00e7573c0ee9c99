"""The span of one call to a base model, in OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import orjson

from visa_proxy.errors import VisaError
from visa_proxy.llm.base import MAX_ANSWER_BYTES, Endpoint, Exchange

if TYPE_CHECKING:
    from opentelemetry.trace import Span

OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/responses": "chat",
    "/embeddings": "embeddings",
}
"""gen_ai.operation.name by path below /v1."""
_TAIL: Final = 64 * 1024
"""Bytes at the end of a stream in which its usage must stand."""
_COUNTS: Final = {
    "gen_ai.usage.input_tokens": ("prompt_tokens", "input_tokens"),
    "gen_ai.usage.output_tokens": ("completion_tokens", "output_tokens"),
}


class Asked(AbstractAsyncContextManager[Exchange]):
    """An exchange with its span: begun with the request, ended with the answer, or with what went wrong."""

    def __init__(self, span: Span, asking: AbstractAsyncContextManager[Exchange], told: Callable[[Endpoint], None]) -> None:
        """`told` hears who answers."""
        self._span = span
        self._asking = asking
        self._told = told

    async def __aenter__(self) -> Exchange:
        try:
            answer = await self._asking.__aenter__()
        except BaseException as error:
            self._failed(error)
            self._span.end()
            raise
        self._told(answer.endpoint)
        self._span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= 400:
            self._error(str(answer.status))
        return _Overheard(self._span, answer) if self._span.is_recording() else answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._asking.__aexit__(kind, error, trace)
        finally:
            if error is not None:
                self._failed(error)
            self._span.end()

    def _failed(self, error: BaseException) -> None:
        # By its code or type: a message may quote an answer.
        code = error.code if isinstance(error, VisaError) else None
        self._error(code or type(error).__name__)

    def _error(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)


class _Overheard(Exchange):
    """An answer on its way to whoever reads it; model and usage are noted when it has passed."""

    def __init__(self, span: Span, answer: Exchange) -> None:
        super().__init__(answer.endpoint)
        self.status, self.headers, self.deadline = answer.status, answer.headers, answer.deadline
        self._span = span
        self._answer = answer

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Whoever made the answer ends it."""

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        raw = await self._answer.read(max_bytes)
        self._note(raw)
        return raw

    async def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        tail = bytearray()
        try:
            async for chunk in self._answer.chunks(idle_s):
                tail += chunk
                if len(tail) > 2 * _TAIL:
                    del tail[:-_TAIL]
                yield chunk
        finally:
            self._note(bytes(tail))

    def _note(self, raw: bytes) -> None:
        if "content-encoding" in self.headers:
            return
        kind = self.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            for line in reversed(raw.split(b"\n")):
                if line.startswith(b"data:") and self._told(line[5:]):
                    return
        elif kind.startswith("application/json"):
            self._told(raw)

    def _told(self, text: bytes) -> bool:
        """Notes what a JSON text says of model and usage; whether it told of usage."""
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            return False
        body = data.get("response", data) if isinstance(data, dict) else None
        if not isinstance(body, dict):
            return False
        if isinstance(body.get("model"), str):
            self._span.set_attribute("gen_ai.response.model", body["model"])
        usage = body.get("usage")
        if not isinstance(usage, dict):
            return False
        self._span.set_attributes(counts(usage))
        return True


def counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """Token counts of an OpenAI `usage`, by the names that spans have for them."""
    found = {name: next((usage[key] for key in keys if key in usage), None) for name, keys in _COUNTS.items()}
    return {name: count for name, count in found.items() if isinstance(count, int)}
