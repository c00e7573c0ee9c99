"""π: the rewriter (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from visa_proxy.values import ValueVector

SAMPLING: Final = 0.4
"""Temperature of candidates after the first: warm enough to differ, cool enough to copy."""


@dataclass(frozen=True)
class Context:
    """Where in a longer answer a text stands."""

    outline: str = ""
    """What the answer has dealt with so far, a line for each part; "" at the beginning."""
    tail: str = ""
    """The end of what the reader has seen so far; parts that are still being rewritten are not in it."""


NO_CONTEXT: Final = Context()


@dataclass(frozen=True)
class RewriteRequest:
    """One text to rewrite. Verbatim spans in `text` are already placeholders."""

    query: str
    text: str
    target: ValueVector
    """v*, the values wanted."""
    context: Context = NO_CONTEXT
    model: str | None = None
    """Model or LoRA adapter name; None means the rewriter's default."""
    candidates: int = 1
    temperature: float = 0.0
    seed: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """To send along, where it is asked over HTTP: they tie what the rewriter's server traces to the request."""


@dataclass(frozen=True)
class Rewrites:
    """Candidate texts, in the order the endpoint gave them, and what they cost."""

    texts: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


class Rewriter(Protocol):
    """Implementations are safe to call concurrently and honour cancellation."""

    reach: int
    """Characters that it takes at once; longer texts come to it in parts."""
    model: str
    """Asked for where a request names none."""

    async def rewrite(self, request: RewriteRequest, *, timeout_s: float) -> Rewrites:
        """Candidates for `request`. Raises RewriterError, whose `reason` says why there are none."""
        ...
