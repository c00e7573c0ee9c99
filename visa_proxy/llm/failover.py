"""A second endpoint for requests that the first does not take."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final

from visa_proxy.errors import UpstreamUnavailable
from visa_proxy.llm.base import Body, Endpoint, Exchange, Headers

_PASSED_ON: Final = frozenset((502, 503, 504))
"""Statuses by which an endpoint says that it, or what is behind it, cannot answer now."""


class Failover:
    """Endpoints in the order in which they are asked, with the interface of one."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """At least one."""
        self.endpoints = tuple(endpoints)

    def request(self, method: str, path: str, *, headers: Headers = (), body: Body = None) -> Attempts:
        """`async with failover.request(…) as answer:`; `answer.endpoint` is who answered."""
        return Attempts(self.endpoints, method, path, list(headers), body)


class Attempts:
    """One request to the first endpoint that takes it: the next is asked when one cannot be reached, or answers 502, 503 or 504.

    Never after a byte of a request may have left without an answer: it might be worked on twice. The last endpoint's answer or error
    counts, whatever it is.
    """

    def __init__(self, endpoints: tuple[Endpoint, ...], method: str, path: str, headers: Headers, body: Body) -> None:
        self._endpoints = endpoints
        self._request = (method, path, headers, body)
        self._exchange: Exchange | None = None
        self.failovers = 0
        """How often the next endpoint was asked, also when the last one failed."""

    async def __aenter__(self) -> Exchange:
        method, path, headers, body = self._request
        for endpoint in self._endpoints[:-1]:
            exchange = endpoint.request(method, path, headers=headers, body=body, hurry=True)
            try:
                await exchange.__aenter__()
            except UpstreamUnavailable as error:
                if not error.unsent:
                    raise
            else:
                if exchange.status not in _PASSED_ON:
                    self._exchange = exchange
                    return exchange
                await exchange.__aexit__(None, None, None)
            self.failovers += 1
        self._exchange = self._endpoints[-1].request(method, path, headers=headers, body=body)
        return await self._exchange.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._exchange is not None
        await self._exchange.__aexit__(kind, error, trace)
