"""A rewriter behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import RewriterError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm.base import Endpoint
from visa_proxy.rewriter.base import SAMPLING, RewriteRequest, Rewrites
from visa_proxy.rewriter.prompt import Style, render

BUNDLED_MODEL: Final = Path(__file__).parent.parent / "assets" / "rewriter"
"""The small model that comes with the package; its prompt style is "compact"."""
MAX_REPLY_BYTES: Final = 1024 * 1024
REACH: Final[dict[Style, int]] = {"full": 4_000, "compact": 600}
"""Characters a model takes at once, by prompt style: the small model was trained on texts of at most about 130 words."""
_THINKING: Final = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


def budget(text: str) -> int:
    """Tokens that a rewrite of `text` may take, at least 64."""
    # A token is at least one byte, and a rewrite is about as long as its source: beyond this it has lost its way.
    return 64 + len(text.encode()) // 2


def without_thoughts(reply: str) -> str:
    """What a model says after it has thought, if it did, stripped; "" when it only thought."""
    return _THINKING.sub("", reply).strip()


class ChatRewriter:
    """Asks `endpoint` for each candidate in a request of its own: not every server takes `n`, and a prefix cache shares the prompt."""

    def __init__(
        self, endpoint: Endpoint, *, model: str, style: Style = "full", served: Callable[[str], str] | None = None
    ) -> None:
        """`model`: asked for where a request names none. `served`: what the endpoint calls a model or adapter now; None: the same."""
        self._endpoint = endpoint
        self.model = model
        self._style: Style = style
        self._served = served
        self.reach = REACH[style]

    async def rewrite(self, request: RewriteRequest, *, timeout_s: float) -> Rewrites:
        """Those candidates that came in time, the first greedy unless the request sets a temperature. Raises RewriterError for none."""
        tasks = [asyncio.ensure_future(self._candidate(request, i)) for i in range(request.candidates)]
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout_s)
        finally:
            for task in tasks:
                task.cancel()
        # In the order they were asked for; one that is slow or fails costs only itself.
        ended = [task for task in tasks if task in done]
        good = [task.result() for task in ended if task.exception() is None]
        if not good:
            failed = [error for task in ended if (error := task.exception()) is not None]
            raise failed[0] if failed else RewriterError("timeout", f"the rewriter did not answer within {timeout_s:.1f} s")
        return Rewrites(
            texts=tuple(text for text, _, _ in good),
            prompt_tokens=sum(prompt for _, prompt, _ in good),
            completion_tokens=sum(completion for _, _, completion in good),
        )

    async def _candidate(self, request: RewriteRequest, index: int) -> tuple[str, int, int]:
        model = request.model or self.model
        body: dict[str, Any] = {
            "model": model if self._served is None else self._served(model),
            "messages": render(
                self._style, query=request.query, text=request.text, target=request.target, context=request.context
            ),
            "temperature": request.temperature if index == 0 else max(request.temperature, SAMPLING),
            "max_tokens": budget(request.text),
            "stream": False,
        }
        if request.seed is not None or index:
            body["seed"] = (request.seed or 0) + index
        try:
            reply = await self._endpoint.json("/chat/completions", body, headers=request.headers, max_bytes=MAX_REPLY_BYTES)
        except UpstreamTimeout as error:
            raise RewriterError("timeout", error.message) from error
        except UpstreamUnavailable as error:
            raise RewriterError("unavailable", error.message) from error
        except UpstreamError as error:
            raise RewriterError(_reason(error), error.message) from error
        return _read(reply)


def _reason(error: UpstreamError) -> str:
    if error.code == "upstream_too_large":
        return "endless"
    if error.code == "upstream_garbled":
        return "garbled"
    if error.status == 404:
        return "unknown-model"
    return "unavailable" if error.status in (502, 503) else "error"


def _read(reply: Any) -> tuple[str, int, int]:
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        usage = reply.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RewriterError("garbled", "the rewriter's answer is no chat completion") from error
    if choice.get("finish_reason") == "length":
        raise RewriterError("endless", "the rewriter did not come to an end")
    if text is not None and not isinstance(text, str):
        raise RewriterError("garbled", "the rewriter's answer is no text")
    text = without_thoughts(text or "")
    if not text:
        raise RewriterError("empty", "the rewriter's answer is empty")
    return text, *tokens
