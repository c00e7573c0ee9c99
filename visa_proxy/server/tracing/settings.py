"""Whether spans are made, and where they go, by OpenTelemetry's own environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visa_proxy import __version__
from visa_proxy.errors import ConfigError
from visa_proxy.optional import installed, need

EXTRA = "otel"


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether spans are to be exported: a collector or the exporter is named, and nothing says no.

    Raises ConfigError for an exporter or a protocol that we do not have, MissingExtra when what is needed is not installed.
    """
    exporter = _given(environ, "OTEL_TRACES_EXPORTER")
    named = exporter or _given(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not named or exporter == "none" or _given(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return False
    protocol = _given(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if exporter not in ("", "otlp"):
        raise ConfigError([f"environment variable OTEL_TRACES_EXPORTER: found {exporter!r}; allowed: otlp, none"])
    if protocol not in ("", "http/protobuf"):
        raise ConfigError([f"environment variable OTEL_EXPORTER_OTLP_PROTOCOL: found {protocol!r}; allowed: http/protobuf"])
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        endpoint = _given(environ, variable)
        if endpoint and not endpoint.lower().startswith(("http://", "https://")):
            raise ConfigError([f"environment variable {variable}: found {endpoint!r}; allowed: an http:// or https:// URL"])
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        _installed(module)
    return True


def new_provider(environ: Mapping[str, str]) -> Any:
    """A TracerProvider of our own, which touches nothing global. Sampler, limits, batches and address are the environment's."""
    sdk = need("opentelemetry.sdk.trace", extra=EXTRA)
    export = need("opentelemetry.sdk.trace.export", extra=EXTRA)
    otlp = need("opentelemetry.exporter.otlp.proto.http.trace_exporter", extra=EXTRA)
    resources = need("opentelemetry.sdk.resources", extra=EXTRA)
    # What is given here is stronger than the environment, so the name is given only where the environment has none.
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    name = {} if named else {"service.name": "visa-proxy"}
    resource = resources.Resource.create({**name, "service.version": __version__})
    # At the end of the process we flush, for as long as we like; the provider's own hook would wait for half a minute.
    try:
        provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    except ValueError as error:
        raise ConfigError([f"an environment variable OTEL_*: {error}"]) from error
    return provider


def _given(environ: Mapping[str, str], *names: str) -> str:
    """The first of the variables that is set and not empty, or ""."""
    return next((value for name in names if (value := environ.get(name, "").strip())), "")


def _installed(module: str) -> None:
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        installed(".".join(parts[:end]), extra=EXTRA)
