"""An OTLP/HTTP collector that keeps the spans that it is sent."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

KINDS = ("", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class Span:
    """One span as it arrived."""

    name: str
    kind: str
    trace: str
    """Hex, as in a `traceparent`."""
    id: str
    parent: str
    """"" where there is none."""
    failed: bool
    attributes: dict[str, Any]
    service: str

    @property
    def text(self) -> str:
        """All that it says."""
        return json.dumps([self.name, self.attributes])


@dataclass
class FakeCollector:
    """`hangs`: takes requests and answers none."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    hangs: bool = False
    asked: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(60)
        raw = await request.read()
        if request.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_span(span, service) for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def _span(span: Any, service: str) -> Span:
    assert not span.events, "an event could hold an exception's message"
    assert not span.status.message
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
        service=service,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
