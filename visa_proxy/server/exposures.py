"""What is kept of one answered request: noted while it is answered, made into a row when that is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final

from visa_proxy.errors import DeadlineExceeded, RewriteRefused, VisaError
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Key
from visa_proxy.shield.trace import Trace
from visa_proxy.store.base import MAX_TEXT
from visa_proxy.store.rows import Exposure, Kept, Unmeasured
from visa_proxy.values import ValueVector

Texts = Mapping[Key, tuple[str, str]]
"""The base's text and the client's."""
CUT: Final = "skipped:cut"
"""The client left, or the stream broke, before the end."""
NO_TEXTS: Final[Texts] = MappingProxyType({})
_DAY_S: Final = 86_400.0


class Exposed:
    """One request from its plan to its end. Holds nothing of the request's body but the question, and that only where texts are kept."""

    __slots__ = (
        "_assignment",
        "_at",
        "_latency_s",
        "_profile",
        "_query",
        "_streamed",
        "_surface",
        "_tenant",
        "_texts",
        "_traces",
        "request_id",
        "status"
    )  # fmt: skip

    def __init__(self, plan: Plan, status: str = CUT, *, request_id: str = "", surface: str = "") -> None:
        """`request_id`: another than the request's own. `surface`: another than the plan's."""
        request, tenant = plan.request, plan.tenant
        self.status = status
        self.request_id = request_id
        self._traces: Sequence[Trace] = ()
        self._texts = NO_TEXTS
        self._query: str | None = None
        self._at = self._latency_s = 0.0
        self._assignment = plan.assignment
        self._tenant = tenant.name
        self._profile = plan.profile.name
        self._surface = surface or request.surface.path
        self._streamed = request.stream
        if tenant.store.text:
            self._query = request.surface.query(request.data, (0,))[:MAX_TEXT]

    def report(self, status: str, traces: Sequence[Trace], texts: Texts) -> None:
        """What became of it. `texts`: empty where none are kept."""
        self.status, self._traces, self._texts = status, traces, texts

    def fail(self, error: VisaError) -> None:
        """The answer is an error; those that a passed-through answer would not have had just the same are kept, too."""
        if isinstance(error, RewriteRefused):
            self.status = "fallback:refused"
        elif isinstance(error, DeadlineExceeded):
            self.status = "fallback:deadline"

    def end(self, request_id: bytes, status: int | None, latency_s: float) -> bool:
        """Whether it is to be kept: not an answer that failed for a reason that has nothing to do with the profile."""
        self._at, self._latency_s = time.time(), latency_s
        self.request_id = self.request_id or request_id.decode()
        if status == 200:
            return True
        if status == 499:
            self.status = CUT
        return status in (None, 499) or status < 300 or self.status in ("fallback:refused", "fallback:deadline")

    @property
    def size(self) -> int:
        """Characters of text."""
        if self._query is None and not self._texts:
            return 0
        return len(self._query or "") + sum(len(base) + len(said) for base, said in self._texts.values())

    def row(self) -> Kept:
        """Several texts (`n` > 1) are one row: means of the vectors and similarities of those that were measured, the least consistency,
        the longest rewriting; their texts one after the other.
        """
        experiment = arm = unit_hash = ""
        if self._assignment is not None:
            experiment, arm, unit_hash = self._assignment.experiment, self._assignment.arm, self._assignment.unit_hash
        row = Unmeasured(
            self._tenant,
            self.request_id,
            self._at,
            self._profile,
            experiment,
            arm,
            unit_hash,
            self._surface.removeprefix("/"),
            1 if self._streamed else 0,
            self.status,
            self._latency_s,
        )
        if not self._traces and self._query is None:
            return row
        more = self._measured() if self._traces else {}
        return Exposure(**(row._asdict() | more | {"streamed": self._streamed, "query": self._query}))

    def _measured(self) -> dict[str, Any]:
        traces = self._traces
        spent = max(sum(trace.timings_ms.values()) for trace in traces) / 1000
        return {
            "before": _mean([trace.before for trace in traces]),
            "after": _mean([trace.after for trace in traces]),
            "target": _mean([trace.target for trace in traces]),
            "similarity_before": _similarity(traces, lambda trace: trace.before),
            "similarity_after": _similarity(traces, lambda trace: trace.after),
            "consistency": min((trace.consistency for trace in traces if trace.consistency is not None), default=None),
            # Windows are rewritten side by side, so their times may add up to more than there was.
            "rewrite_s": min(spent, self._latency_s) if spent else None,
            "answer": _joined([base for base, _ in self._texts.values()]),
            "rewrite": _joined([said for _, said in self._texts.values()]) if self.status == "adapted" else None,
        }


def kept_seconds(policies: PolicySet) -> dict[str, float]:
    """How long texts stay, by tenant."""
    settings = {name: tenant.store for name, tenant in policies.tenants.items()}
    return {name: each.retention_days * _DAY_S if each.text else 0.0 for name, each in settings.items()}


def _mean(vectors: Sequence[ValueVector | None]) -> dict[str, float] | None:
    known = [vector.to_dict() for vector in vectors if vector is not None]
    return {name: fmean(each.get(name, 0.0) for each in known) for name in known[0]} if known else None


def _similarity(traces: Sequence[Trace], of: Callable[[Trace], ValueVector | None]) -> float | None:
    pairs = [(of(trace), trace.target) for trace in traces]
    known = [vector.cosine(target) for vector, target in pairs if vector is not None and target is not None]
    return fmean(known) if known else None


def _joined(texts: Sequence[str]) -> str | None:
    return "\n\n".join(texts)[:MAX_TEXT] if texts else None
