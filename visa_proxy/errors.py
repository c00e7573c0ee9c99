"""Every exception visa-proxy raises on purpose.

    VisaError                      status 500  api_error
    ├── RequestError               status 400  invalid_request_error     the caller sent something we cannot take
    │   ├── AuthenticationError    status 401  code invalid_api_key
    │   ├── PermissionDenied       status 403  code profile_not_allowed | instruction_not_allowed | ...
    │   ├── NotFound               status 404  code model_not_found | unknown_url | ...
    │   ├── MethodNotAllowed       status 405
    │   ├── PayloadTooLarge        status 413
    │   └── RateLimited            status 429  type rate_limit_error
    ├── UpstreamError              status 502  the base model failed; carries the base's status where it has one
    │   ├── UpstreamUnavailable    status 503  connection refused, reset, DNS
    │   └── UpstreamTimeout        status 504
    ├── RewriterError              a rewrite could not be had; never reaches a client, `reason` becomes `fallback:<reason>`
    ├── RewriteRefused             status 502  no verified rewrite, under `on_failure: error`
    ├── NotReady                   status 503  models are still being loaded, or could not be
    ├── Stopping                   status 503  the server ends
    ├── EngineError                a child process did not become ready
    ├── ConfigError                a file we read at start-up or reload is wrong; names file, line, column, key
    └── MissingExtra               an optional dependency is not installed; names the pip line

`status`, `type`, `param` and `code` are those of OpenAI's error JSON; `error_body` renders them.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VisaError(Exception):
    """Base of the tree. `message` is safe to show to a client."""

    status: int = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: dict[str, str] = {}
        """Response headers that go with the error, such as retry-after."""
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


class PayloadTooLarge(RequestError):
    """The body exceeds the tenant's `limits.body_mb`."""

    status = 413
    default_code = "payload_too_large"


class RateLimited(RequestError):
    """The tenant's concurrency or rate limit is reached."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class UpstreamError(VisaError):
    """The base model answered with an error, or with something that is no answer.

    `status` is the base's own where it sent one (4xx and 5xx are passed on), else 502.
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
    """No connection to the base model."""

    status = 503
    default_code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    """The base model did not answer within the deadline."""

    status = 504
    default_code = "upstream_timeout"


class RewriterError(VisaError):
    """No usable rewrite. `reason` is one of unavailable, timeout, garbled, empty, endless, error."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RewriteRefused(VisaError):
    """No verified rewrite, and the policy says `on_failure: error`."""

    status = 502
    type = "rewrite_error"
    default_code = "rewrite_unverified"


class NotReady(VisaError):
    """The models are still being loaded, or could not be."""

    status = 503
    default_code = "not_ready"


class Stopping(VisaError):
    """The server is being stopped, and the time for requests in flight is over."""

    status = 503
    default_code = "server_stopping"


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
