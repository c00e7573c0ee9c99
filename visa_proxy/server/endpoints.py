"""Where models are: an address of the config becomes an endpoint to ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from visa_proxy.errors import ConfigError
from visa_proxy.llm.base import Endpoint
from visa_proxy.llm.http import HttpEndpoint
from visa_proxy.optional import installed
from visa_proxy.policy import config
from visa_proxy.server.types import App

_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))


def open_endpoint(address: config.Base, session: Any, *, inner: App | None = None, name: str = "base model") -> Endpoint:
    """The endpoint at `address`. `session`: of aiohttp; `inner`: the app of the server we run in; `name`: how errors call it."""
    if isinstance(address, config.Endpoint):
        return HttpEndpoint(session, address.url, api_key=address.api_key, timeout_s=address.timeout_s, name=name)
    if isinstance(address, config.Inner):
        from visa_proxy.llm.asgi import AsgiEndpoint

        assert inner is not None, "check_addresses refuses an inner address without an inner app"
        return AsgiEndpoint(inner, api_key=address.api_key, timeout_s=address.timeout_s, name=name)
    from visa_proxy.llm.litellm import LiteLLMEndpoint

    return LiteLLMEndpoint(
        address.name,
        model=address.model,
        api_key=address.api_key,
        api_base=address.api_base,
        timeout_s=address.timeout_s,
        name=name,
    )


def open_bases(bases: Mapping[str, config.Base], session: Any, *, inner: App | None = None) -> dict[str, Endpoint]:
    """The endpoints of all bases, by name."""
    return {name: open_endpoint(address, session, inner=inner) for name, address in bases.items()}


def check_addresses(given: config.ServerConfig, *, inner: bool) -> None:
    """Raises ConfigError for an address that cannot be right, MissingExtra for LiteLLM where it is not installed.

    Those are addresses inside a server that we do not run in, and a detector or translator at the port that we listen on ourselves.
    """
    places = [(f"bases.{name}", address) for name, address in given.bases.items()]
    if given.rewriter.endpoint is not None:
        places.append(("rewriter", given.rewriter.endpoint))
    outside = [place for place, address in places if isinstance(address, config.Inner)]
    if outside and not inner:
        raise ConfigError(
            [f"{place}: inner: true is for a proxy that runs inside vLLM; allowed here: url, or litellm" for place in outside]
        )
    instruments = {"detector": given.detector.endpoint, "translator": given.translator.endpoint}
    own = [name for name, address in instruments.items() if address is not None and _is_own(address.url, given.port)]
    if own and not inner:  # the server that we run in listens on a port of its own
        raise ConfigError(
            [f"{name}.url: port {given.port} of this machine is the proxy's own; allowed: another server" for name in own]
        )
    if any(isinstance(address, config.LiteLLM) for _, address in places):
        installed("litellm", extra="litellm")


def _is_own(url: str, port: int) -> bool:
    parts = urlsplit(url)
    given = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.hostname or "").rstrip(".") in _LOOPBACK and given == port
