"""Detector, translator, fact analyzer: which one the config asks for, and what becomes of an endpoint's failure when it is behind one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from visa_proxy.errors import InstrumentError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.llm.base import Endpoint

Open = Callable[[], Endpoint]
"""Opens the endpoint of an instrument that is behind one."""


@dataclass(frozen=True)
class Settings:
    """What the config says of an instrument. The default is the detector or translator that comes with the package."""

    kind: str = "encoder"
    """encoder, nli (facts): weights in this process; else what is behind the endpoint: judge or vllm (detector), llm (translator)."""
    path: str = ""
    """Folder of an encoder's weights, or `hf://owner/name`; empty: the bundled ones."""
    spaces: tuple[str, ...] = ()
    """Of a detector: value spaces that it measures beside Schwartz's, each a bundled name or an absolute path."""
    model: str = ""
    """What the endpoint is asked for."""
    explain: bool = False
    """Whether a judge gives its reasons."""


def not_opened() -> Endpoint:
    """For an instrument that needs no endpoint."""
    raise AssertionError("the config of an instrument behind an endpoint has the address of one")


def failure(instrument: str, error: UpstreamError) -> InstrumentError:
    """What an instrument's caller is told. The words of an error answer may quote what was asked, so its status has to do."""
    if isinstance(error, UpstreamTimeout | UpstreamUnavailable):
        return InstrumentError(instrument, error.message, unavailable=True)
    if error.code == "upstream_garbled":
        return garbled(instrument, "something that is not JSON")
    if error.code == "upstream_too_large":
        return garbled(instrument, "more than it should")
    busy = error.status in (429, 502, 503, 504)
    return InstrumentError(instrument, f"the {instrument} answered with status {error.status}", unavailable=busy)


def garbled(instrument: str, what: str) -> InstrumentError:
    """The error for an answer that cannot be read; `what` says, in words of ours, what came instead."""
    return InstrumentError(instrument, f"the {instrument} answered with {what}")


def late(instrument: str, within_s: float) -> InstrumentError:
    """The error for an instrument that takes too long."""
    return InstrumentError(instrument, f"the {instrument} did not answer within {within_s:g} s", unavailable=True)
