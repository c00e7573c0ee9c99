"""What is traced of a request. Names, numbers and states only: never a word of a message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from visa_proxy import __version__
from visa_proxy.llm import base as llm
from visa_proxy.llm.base import Exchange
from visa_proxy.policy.config import Base, Endpoint, LiteLLM
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call
from visa_proxy.server.tracing.asked import OPERATIONS, Asked
from visa_proxy.server.tracing.settings import new_provider
from visa_proxy.shield.trace import Trace, watched_by

if TYPE_CHECKING:
    from opentelemetry.trace import Span

FLUSH_S: Final = 5.0
"""What a collector has, at the end, to take what was not yet sent."""
_METHODS: Final = frozenset("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH".split())
_VISA: Final = ("tenant", "profile", "experiment", "status", "stream-mode", "base")
"""X-Visa-* response headers that become attributes."""
Headers = list[tuple[str, str]]
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "azure_text": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""What OpenTelemetry calls LiteLLM's providers, where it has another name for them."""


class Tracing:
    """Spans of one process; see `settings` for where they go."""

    def __init__(self, bases: Mapping[str, Base], environ: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = new_provider(environ)
        self._tracer: trace.Tracer = self._provider.get_tracer("visa_proxy", __version__)
        self._trace = trace
        # Baggage would be a way for clients to write into our log, and to whoever is behind us.
        self._propagator = TraceContextTextMapPropagator()
        self._fields = frozenset(self._propagator.fields)
        self._bases = bases
        self._servers = {name: _server(base) for name, base in bases.items()}

    @contextlib.contextmanager
    def request(self, call: Call, route: str) -> Iterator[None]:
        """The span of a request from its headers to the last byte of its answer; goes on from the client's `traceparent`.

        `route` is one of a few, or no path.
        """
        given = {name: call.headers[name.encode()].decode("latin-1") for name in self._fields if name.encode() in call.headers}
        method = call.method if call.method in _METHODS else "_OTHER"
        known = {"http.route": route} if route.startswith("/") else {}
        if method == "_OTHER":
            known["http.request.method_original"] = call.method
        with self._tracer.start_as_current_span(
            f"{'HTTP' if method == '_OTHER' else method} {known.get('http.route', '')}".rstrip(),
            context=self._propagator.extract(given),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": call.path, "url.scheme": "http", **known},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                with watched_by(self._stage):
                    yield
            finally:
                self._answered(span, call)

    def report(self, visa: Mapping[str, Any], traces: Mapping[Any, Trace]) -> None:
        """What became of the answer, on the span of its request."""
        consistent = [trace.consistency for trace in traces.values() if trace.consistency is not None]
        span = self._trace.get_current_span()
        span.set_attributes({"visa.status": visa["status"], "visa.texts": len(traces)})
        if consistent:
            span.set_attribute("visa.consistency", min(consistent))

    def ask(
        self,
        tenant: Tenant,
        method: str,
        path: str,
        headers: Headers,
        make: Callable[[Headers], AbstractAsyncContextManager[Exchange]],
        *,
        model: str | None = None,
        base_of: Callable[[llm.Endpoint], str] | None = None,
    ) -> AbstractAsyncContextManager[Exchange]:
        """What `make` returns, with a span: it is given the headers with a `traceparent` of that span in the place of the client's.

        `base_of`: the name of the base that an endpoint is, where another one than the tenant's may answer.
        """
        operation = OPERATIONS.get(path.partition("?")[0]) if method == "POST" else None
        attributes = {"http.request.method": method, "visa.base": tenant.base, **self._servers[tenant.base]}
        if operation is not None:
            attributes["gen_ai.operation.name"] = operation
        if model is not None:
            attributes["gen_ai.request.model"] = model
        span = self._tracer.start_span(_name(operation, method, model), kind=self._trace.SpanKind.CLIENT, attributes=attributes)

        def told(endpoint: llm.Endpoint) -> None:
            base = tenant.base if base_of is None else base_of(endpoint)
            if base == tenant.base:
                return
            span.set_attributes({"visa.base": base, **self._servers[base]})
            asked = self._bases[base].model
            if asked is not None:
                span.set_attribute("gen_ai.request.model", asked)
                span.update_name(_name(operation, method, asked))

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        kept = [(name, value) for name, value in headers if name.lower() not in self._fields]
        return Asked(span, make([*kept, *carrier.items()]), told)

    async def close(self) -> None:
        """Sends what is left, within `FLUSH_S`."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # No thread of a pool: the process would wait for those before it ends.
        threading.Thread(target=flush, name="flush spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await done.wait()

    @contextlib.contextmanager
    def _stage(self, name: str, trace: Trace) -> Iterator[tuple[tuple[str, str], ...]]:
        """The span of a stage of the shield; that of `rewrite` is a call to the rewriter, which is told of it by headers."""
        kind, attributes = self._trace.SpanKind.INTERNAL, {}
        if name == "rewrite":
            kind, attributes = self._trace.SpanKind.CLIENT, {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
            attributes |= {"gen_ai.request.model": trace.model} if trace.model else {}
        prompt, completion = trace.prompt_tokens, trace.completion_tokens
        with self._tracer.start_as_current_span(
            f"visa.{name}", kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            carrier: dict[str, str] = {}
            if name == "rewrite":
                self._propagator.inject(carrier)
            try:
                yield tuple(carrier.items())
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise
            if name == "rewrite":
                span.set_attribute("gen_ai.usage.input_tokens", trace.prompt_tokens - prompt)
                span.set_attribute("gen_ai.usage.output_tokens", trace.completion_tokens - completion)

    def _answered(self, span: Span, call: Call) -> None:
        status = call.status or 499
        span.set_attribute("http.response.status_code", status)
        known = {f"visa.{name.replace('-', '_')}": call.visa.get(f"x-visa-{name}".encode()) for name in _VISA}
        # The header of a stream left before its status was known; the report came later.
        told = getattr(span, "attributes", None) or {}
        span.set_attributes({name: value for name, value in known.items() if value is not None and name not in told})
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(self._trace.StatusCode.ERROR)


def _name(operation: str | None, method: str, model: str | None) -> str:
    """Of a span of a call to a base."""
    return f"{operation} {model or ''}".rstrip() if operation else method


def _server(base: Base) -> dict[str, Any]:
    """Attributes that tell of a base."""
    if isinstance(base, LiteLLM):
        provider, slash, _ = base.name.partition("/")
        return {"gen_ai.provider.name": _PROVIDERS.get(provider, provider) if slash else "openai"}
    named: dict[str, Any] = {"gen_ai.provider.name": "openai"}  # what speaks its protocol, by the conventions
    if isinstance(base, Endpoint):
        parts = urlsplit(base.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        named |= {"server.address": parts.hostname or "", "server.port": port}
    return named
