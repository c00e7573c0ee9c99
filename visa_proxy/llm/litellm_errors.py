"""LiteLLM's exceptions as errors of an endpoint.

The SDK wraps what happened in exceptions of its own, often several, and guesses a status where there was none. What is told of a failure
is therefore taken from the whole chain: the provider's answer where it gave one, else whether it could be reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson
from multidict import CIMultiDict

from visa_proxy.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm.base import Endpoint

_WRAPPING: Final = re.compile(r"(?:litellm\.\w+: (?:\w+Error: )?)*(?:\w+Exception - )?(?:Error code: \d+(?: - )?)?")
"""What the SDK puts before the provider's words."""
_ADVICE: Final = " To drop these, set "
"""What it puts after its own; about settings that a client does not have."""
# By name: the SDK's clients use httpx or its successor, whose exceptions are called the same.
_UNREACHED: Final = frozenset(("ConnectError", "ConnectTimeout"))
_LATE: Final = frozenset(("TimeoutException", "APITimeoutError", "TimeoutError"))
_BROKEN: Final = frozenset(("TransportError", "APIConnectionError", "ConnectionError"))


def told(error: Exception, endpoint: Endpoint) -> UpstreamError | None:
    """The error that the provider answered with, or with which the SDK refused to ask it; None when there was no such answer."""
    links = _chain(error)
    status = _status(links)
    headers = next((found for each in links if (found := getattr(each, "litellm_response_headers", None)) is not None), None)
    said = _said(links)
    refused = status is not None and status < 500 and not _kinds(links) & _LATE
    if headers is None and "message" in said:
        if not refused:
            return None
        said = {"error": {"type": "invalid_request_error", **said}}
    return endpoint.error(status or 502, orjson.dumps(said), CIMultiDict(headers or {}))


def failure(error: Exception, endpoint: Endpoint, *, begun: bool) -> UpstreamError:
    """What became of a call that nobody answered with an error. `begun`: a part of its answer was there."""
    kinds = _kinds(_chain(error))
    if kinds & _UNREACHED:
        return UpstreamUnavailable(f"the {endpoint.name} cannot be reached", unsent=True)
    if kinds & _LATE:
        return UpstreamTimeout(f"the {endpoint.name} did not answer within {endpoint.timeout_s:g} s")
    if kinds & _BROKEN and not begun:
        return UpstreamUnavailable(f"the {endpoint.name} cannot be reached")
    return garbled(endpoint)


def garbled(endpoint: Endpoint) -> UpstreamError:
    """The error for an answer that is none, or stops in the middle."""
    return UpstreamError(f"the {endpoint.name} broke off or garbled its answer", code="upstream_garbled")


def _chain(error: BaseException) -> list[BaseException]:
    """From the outermost to what happened first."""

    def walk(link: BaseException | None) -> Iterator[BaseException]:
        while link is not None:
            yield link
            link = getattr(link, "original_exception", None) or link.__cause__ or link.__context__

    return list(walk(error))


def _kinds(links: list[BaseException]) -> set[str]:
    """What happened, by the names of classes. The SDK's own say little: it calls everything that it cannot tell a connection error."""
    named = [each for each in links if not type(each).__module__.startswith("litellm") or type(each).__name__ == "Timeout"]
    return {kind.__name__ for each in named for kind in type(each).__mro__}


def _status(links: list[BaseException]) -> int | None:
    """The provider's own rather than what the SDK makes of it: an overloaded provider answers with 529, the SDK says 500."""
    for each in reversed(links):
        status = getattr(each, "status_code", None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _said(links: list[BaseException]) -> dict[str, Any]:
    """What the provider's error answer held; where that is lost, {"message": the SDK's words}."""
    for each in links:
        body = getattr(each, "body", None)
        if isinstance(body, dict) and body:
            return body if "error" in body or "detail" in body else {"error": body}
    text = str(getattr(links[0], "message", links[0]))
    text = _WRAPPING.sub("", text, count=1).partition(_ADVICE)[0].strip()
    start = text.find("{")
    if start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            found = None
        if isinstance(found, dict) and found.keys() & {"error", "detail"}:
            return found
    return {"message": text}
