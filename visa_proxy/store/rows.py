"""What the store holds, a class for each kind of row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Thumbs = Literal["up", "down"]


@dataclass(frozen=True)
class Exposure:
    """One answered request: who was exposed to which profile, and what came of it."""

    request_id: str
    """X-Request-Id. Clients may choose it, so it is unique for its tenant only."""
    at: float
    """When the answer had left, in seconds since 1970 (UTC)."""
    tenant: str
    profile: str
    status: str
    """adapted | passthrough | aligned | skipped:<why> | fallback:<why>"""
    latency_s: float
    """The whole request."""
    experiment: str = ""
    """"" where none took the request."""
    arm: str = ""
    unit_hash: str = ""
    """16 hex digits that stand for the unit; see `policy.assign.Assignment`."""
    before: Mapping[str, float] | None = None
    """Measured values of the base's answer, dimension to -1 … 1; None: not measured."""
    after: Mapping[str, float] | None = None
    target: Mapping[str, float] | None = None
    similarity_before: float | None = None
    """Cosine of `before` and the target, -1 … 1."""
    similarity_after: float | None = None
    consistency: float | None = None
    """The weaker direction of entailment, 0 … 1."""
    rewrite_s: float | None = None
    """Of the latency, what rewriting and verifying took."""
    streamed: bool = False
    surface: str = ""
    """chat/completions | completions | responses | guardrail"""
    query: str | None = None
    """Texts are there only where the tenant's policy opts in."""
    answer: str | None = None
    rewrite: str | None = None


class Unmeasured(NamedTuple):
    """An exposure of which there is no more than this, as of most: their answers were relayed. The first columns of the table, in order.

    A tuple, because one is made for every request, and goes to the database as it is.
    """

    tenant: str
    request_id: str
    at: float
    profile: str
    experiment: str
    arm: str
    unit_hash: str
    surface: str
    streamed: int
    """0 or 1: Python's SQLite driver binds str, int and float at once; for bool and None it looks for adapters, at ten times the cost."""
    status: str
    latency_s: float


Kept = Exposure | Unmeasured


@dataclass(frozen=True)
class Feedback:
    """What somebody thought of one answer. At least one of score, thumbs and label is there."""

    tenant: str
    request_id: str
    at: float
    """Seconds since 1970 (UTC)."""
    score: float | None = None
    """-1 … 1."""
    thumbs: Thumbs | None = None
    label: str | None = None
    comment: str | None = None
    """There only where the tenant's policy opts in to texts."""


@dataclass(frozen=True)
class Measured:
    """An exposure and the newest feedback on it, if any."""

    exposure: Exposure
    feedback: Feedback | None = None
