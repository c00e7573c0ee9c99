"""Every exception visa-proxy raises on purpose.

                                                                          what a client is told about asking again
    VisaError                      status 500  api_error                  -
    ├── RequestError               status 400  invalid_request_error      -      the caller sent something we cannot take
    │   ├── AuthenticationError    status 401  code invalid_api_key       -
    │   ├── PermissionDenied       status 403  code profile_not_allowed | instruction_not_allowed | ...
    │   ├── NotFound               status 404  code model_not_found | unknown_url | ...
    │   ├── MethodNotAllowed       status 405                             -
    │   ├── RequestTimeout         status 408  code request_timeout       -      the request came too slowly; the connection ends
    │   ├── PayloadTooLarge        status 413  code payload_too_large     -
    │   ├── RateLimited            status 429  type rate_limit_error      yes, after the time that the limit needs
    │   └── HeadersTooLarge        status 431  code headers_too_large     -
    ├── UpstreamError              status 502  the base model failed; carries the base's status and retry headers where it has any
    │   ├── UpstreamUnavailable    status 503  code upstream_unavailable  yes    refused, reset, DNS; `unsent`: nothing had been sent
    │   └── UpstreamTimeout        status 504  code upstream_timeout      no     the base may still be working on it
    ├── DeadlineExceeded           status 504  code timeout               no     the request took longer than `limits.total_s`
    ├── RewriterError              a rewrite could not be had; never reaches a client, `reason` becomes `fallback:<reason>`
    ├── InstrumentError            status 502  code instrument_failed | instrument_unavailable (503: yes)
    │                              detector, translator or fact analyzer behind an endpoint failed; never reaches a client of the proxy,
    │                              becomes `fallback:<instrument>`; only who asks for the instrument itself (/v1/visa/*) is told
    ├── RewriteRefused             status 502  code rewrite_unverified    no     no verified rewrite, under `on_failure: error`
    ├── NotReady                   status 503  code not_ready             yes    models are still being loaded, or could not be
    ├── StoreUnavailable           status 503  code store_unavailable     yes    feedback could not be written
    ├── Stopping                   status 503  code server_stopping       yes    the server ends
    ├── EngineError                a child process did not become ready
    ├── ConfigError                a file we read at start-up or reload is wrong; names file, line, column, key
    └── MissingExtra               an optional dependency is not installed; names the pip line

Asking again: "yes" and "no" are the response headers retry-after, retry-after-ms and x-should-retry, which OpenAI's clients obey; "-" leaves
it to them (they repeat 408, 409, 429 and everything from 500 on).
`status`, `type`, `param` and `code` are those of OpenAI's error JSON; `error_body` renders them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

_SOON: Final = MappingProxyType({"retry-after": "1", "x-should-retry": "true"})
_NEVER: Final = MappingProxyType({"x-should-retry": "false"})


class VisaError(Exception):
    """Base of the tree. `message` is safe to show to a client."""

    status: int = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None
    default_headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What `headers` begins with."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: dict[str, str] = dict(self.default_headers)
        """Response headers that go with the error, such as retry-after; names in lower case."""
        self.code = code if code is not None else self.default_code


class RequestError(VisaError):
    """The request is malformed: body, header, parameter."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(RequestError):
    """No API key, or none we know."""

    status = 401
    default_code = "invalid_api_key"


class PermissionDenied(RequestError):
    """The tenant's policy does not let callers choose this."""

    status = 403


class NotFound(RequestError):
    """Unknown model, profile or URL."""

    status = 404


class MethodNotAllowed(RequestError):
    """The URL exists, the method does not."""

    status = 405


class RequestTimeout(RequestError):
    """The client did not send its request within the time it has. The connection ends: what is still to come cannot be told apart."""

    status = 408
    default_code = "request_timeout"
    default_headers = MappingProxyType({"connection": "close"})


class PayloadTooLarge(RequestError):
    """The body exceeds the tenant's `limits.body_mb`."""

    status = 413
    default_code = "payload_too_large"


class HeadersTooLarge(RequestError):
    """Request line and headers exceed the tenant's `limits.header_kb`, or what the server takes."""

    status = 431
    default_code = "headers_too_large"


class RateLimited(RequestError):
    """The tenant's concurrency or rate limit is reached. `wait_s`: seconds until a request may pass, > 0."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, wait_s: float = 1.0, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param, code=code)
        wait_ms = max(1, round(wait_s * 1000))
        self.headers |= {"retry-after": str(-(-wait_ms // 1000)), "retry-after-ms": str(wait_ms), "x-should-retry": "true"}


class UpstreamError(VisaError):
    """The base model answered with an error, or with something that is no answer.

    `status` is the base's own where it sent one (4xx and 5xx are passed on), else 502; so are retry headers among `headers`.
    """

    status = 502
    type = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        if status is not None:
            self.status = status
        self.upstream_type = type
        self.headers.update(headers or {})


class UpstreamUnavailable(UpstreamError):
    """No connection to the base model, or one that broke before the answer began."""

    status = 503
    default_code = "upstream_unavailable"
    default_headers = _SOON

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent
        """Not a byte of the request has left: the connection was never made. It may be sent again, here or elsewhere."""


class UpstreamTimeout(UpstreamError):
    """The base model did not answer within the deadline."""

    status = 504
    default_code = "upstream_timeout"
    default_headers = _NEVER


class DeadlineExceeded(VisaError):
    """The request took longer than the tenant's `limits.total_s`."""

    status = 504
    default_code = "timeout"
    default_headers = _NEVER


class RewriterError(VisaError):
    """No usable rewrite. `reason` is one of unavailable, unknown-model, timeout, garbled, empty, endless, error."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InstrumentError(VisaError):
    """An instrument behind an endpoint did not answer as it should. The message holds nothing of what it was asked or said.

    `instrument`: detector | translator | facts. `unavailable`: it cannot be reached, is busy or late, so asking again may help.
    """

    status = 502
    type = "instrument_error"
    default_code = "instrument_failed"

    def __init__(self, instrument: str, message: str, *, unavailable: bool = False) -> None:
        super().__init__(message, code="instrument_unavailable" if unavailable else None)
        self.instrument = instrument
        if unavailable:
            self.status = 503
            self.headers |= _SOON


class RewriteRefused(VisaError):
    """No verified rewrite, and the policy says `on_failure: error`."""

    status = 502
    type = "rewrite_error"
    default_code = "rewrite_unverified"
    default_headers = _NEVER


class NotReady(VisaError):
    """The models are still being loaded, or could not be."""

    status = 503
    default_code = "not_ready"
    default_headers = _SOON


class StoreUnavailable(VisaError):
    """The database is down, full or late: feedback is not acknowledged."""

    status = 503
    default_code = "store_unavailable"
    default_headers = _SOON


class Stopping(VisaError):
    """The server is being stopped, and the time for requests in flight is over."""

    status = 503
    default_code = "server_stopping"
    default_headers = _SOON


class EngineError(VisaError):
    """A child process cannot be started or did not become ready; the message names its log and the last line of it."""


class ConfigError(VisaError):
    """A policy, config, space or recipe file is wrong. `str()` lists every problem as `file:line:column: key: what`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class MissingExtra(VisaError):
    """An optional dependency is missing; the message is the pip line that installs it."""


def error_body(error: VisaError) -> dict[str, Any]:
    """OpenAI's error JSON for `error`: message and type are strings, param and code string or null."""
    kind = getattr(error, "upstream_type", None) or error.type
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
