"""Prometheus metrics. Labels are tenants, profiles and fixed words: nothing a caller can invent."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from visa_proxy.engines.voices import READY, WAITING
from visa_proxy.policy.assign import Assignment
from visa_proxy.server.engine import EngineState
from visa_proxy.shield.trace import Trace
from visa_proxy.store.base import Result

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One registry per app, so that several can live in one process."""

    def __init__(self, collected: Callable[[], CollectorRegistry] | None = None) -> None:
        """`collected`: what /metrics shows instead of this process's own, where there are other workers."""
        registry = CollectorRegistry()
        self._collected = collected
        self._registry = registry
        self.store: StoreMetrics | None = None
        """None where nothing is stored."""
        self._restarts = _Restarts()
        self._requests = Counter("visa_requests", "Requests answered.", ("tenant", "endpoint", "code"), registry=registry)
        self._seconds = Histogram(
            "visa_request_duration_seconds",
            "Time from request to the last byte of its answer.",
            ("endpoint",),
            registry=registry,
            buckets=_REQUEST_BUCKETS,
        )
        self.in_flight = Gauge(
            "visa_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self._answers = Counter(
            "visa_answers", "Answers (choices) by what became of them.", ("tenant", "profile", "status"), registry=registry
        )
        self._stages = Histogram(
            "visa_stage_duration_seconds", "Time per stage of the shield.", ("stage",), registry=registry, buckets=_STAGE_BUCKETS
        )
        self._windows = Counter(
            "visa_windows", "Windows of streamed answers by what became of them.", ("tenant", "status"), registry=registry
        )
        self._first_token = Histogram(
            "visa_time_to_first_token_seconds",
            "Time from a streamed request to the first text of its rewritten answer.",
            registry=registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._failovers = Counter(
            "visa_failovers", "Requests that another base than the tenant's own was asked.", ("tenant",), registry=registry
        )
        self._tokens = Counter(
            "visa_rewriter_tokens", "Tokens the rewriter read and wrote.", ("tenant", "kind"), registry=registry
        )
        self._exposures = Counter(
            "visa_experiment_exposures", "Requests by experiment and arm.", ("tenant", "experiment", "arm"), registry=registry
        )
        # Set when they are read, by the worker that is asked: what it says is the state of all.
        self.policy_problems = Gauge(
            "visa_policy_problems",
            "Problems in policy files not in force.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.rewriter_ready = Gauge(
            "visa_rewriter_ready", "1 when the supervised rewriter serves.", registry=registry, multiprocess_mode="livemostrecent"
        )
        self.adapters = Gauge(
            "visa_rewriter_adapters",
            "LoRA adapters that policies name, by state: ready, waiting, failed.",
            ("state",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def watch_store(self) -> StoreMetrics:
        """What the store tells of itself is shown from now on."""
        if self.store is None:
            self.store = StoreMetrics(self._registry)
        return self.store

    def rewriter(self, engine: EngineState) -> None:
        """The rewriter's server as it is now."""
        self.rewriter_ready.set(engine.launched and engine.ready)
        if engine.launched:
            self._restarts.note(engine.restarts)
        states = Counts(state if state in (READY, WAITING) else "failed" for state in engine.adapters.values())
        for state in (READY, WAITING, "failed"):
            self.adapters.labels(state.partition(" ")[0]).set(states[state])

    def request(self, tenant: str, endpoint: str, code: int, seconds: float) -> None:
        """One answered request; `tenant` is "" when there was no valid key."""
        self._requests.labels(tenant, endpoint, str(code)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def answer(self, tenant: str, profile: str, trace: Trace) -> None:
        """One choice that went through the shield."""
        self._answers.labels(tenant, profile, trace.outcome).inc()
        for stage, elapsed in trace.timings_ms.items():
            self._stages.labels(stage).observe(elapsed / 1000)
        for status, count in (trace.windows or {}).items():
            self._windows.labels(tenant, status.partition(":")[0]).inc(count)
        if trace.attempts:
            self._tokens.labels(tenant, "prompt").inc(trace.prompt_tokens)
            self._tokens.labels(tenant, "completion").inc(trace.completion_tokens)

    def exposure(self, tenant: str, assignment: Assignment) -> None:
        """One request of an experiment's unit, counted before its answer: arms that fail more often are not counted less."""
        self._exposures.labels(tenant, assignment.experiment, assignment.arm).inc()

    def failover(self, tenant: str) -> None:
        """Another base was asked."""
        self._failovers.labels(tenant).inc()

    def first_token(self, seconds: float) -> None:
        """The first text of a rewritten stream has left."""
        self._first_token.observe(seconds)

    def untouched(self, tenant: str, profile: str, status: str) -> None:
        """One answer that was relayed as it came."""
        self._answers.labels(tenant, profile, status.partition(":")[0]).inc()

    def render(self) -> bytes:
        """Text exposition format."""
        own = CollectorRegistry()
        own.register(self._restarts)
        return generate_latest(self._registry if self._collected is None else self._collected()) + generate_latest(own)


class StoreMetrics:
    """What becomes of rows; see `store.base.Watch`. Used from two threads, as prometheus_client allows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._writes = Counter("visa_store_writes", "Rows by what became of writing them.", ("result",), registry=registry)
        self._dropped = Counter("visa_store_dropped", "Exposures that were not kept.", registry=registry)
        self._up = Gauge("visa_store_up", "1 while the store can be written.", registry=registry, multiprocess_mode="livemin")
        self.queue = Gauge(
            "visa_store_queue", "Exposures that wait to be written.", registry=registry, multiprocess_mode="livesum"
        )
        self._is_up: bool | None = None

    def written(self, result: Result, rows: int) -> None:
        """See Watch."""
        self._writes.labels(result).inc(rows)

    def dropped(self, rows: int) -> None:
        """See Watch."""
        self._dropped.inc(rows)

    def up(self, up: bool) -> None:
        """See Watch."""
        if up is not self._is_up:
            self._up.set(up)
            self._is_up = up


class _Restarts(Collector):
    """The rewriter's restarts, one number for all workers: what is read, and no sum of what each of them has read."""

    def __init__(self) -> None:
        self._before = 0
        """Of rewriters that another has taken the place of since."""
        self._now = 0

    def note(self, restarts: int) -> None:
        """`restarts`: of the present one, since it was first started."""
        if restarts < self._now:
            self._before += self._now
        self._now = restarts

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        total = self._before + self._now
        yield CounterMetricFamily("visa_rewriter_restarts", "Restarts of the supervised rewriter.", value=total)
