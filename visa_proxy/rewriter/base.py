"""π: the rewriter (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from visa_proxy.values import ValueVector


@dataclass(frozen=True)
class RewriteRequest:
    """One text to rewrite. Verbatim spans in `text` are already placeholders."""

    query: str
    text: str
    measured: ValueVector
    """v, the values of `text` as detected."""
    target: ValueVector
    """v*, the values wanted."""
    model: str | None = None
    """Model or LoRA adapter name; None means the rewriter's default."""
    candidates: int = 1
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Rewrites:
    """Candidate texts, in the order the endpoint gave them, and what they cost."""

    texts: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


class Rewriter(Protocol):
    """Implementations are safe to call concurrently and honour cancellation."""

    async def rewrite(self, request: RewriteRequest, *, timeout_s: float) -> Rewrites:
        """Candidates for `request`. Raises RewriterError, whose `reason` says why there are none."""
        ...
