"""The rewriter's names at a base's server: where one server has both, no tenant gets an adapter of the rewriter as its base model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from visa_proxy.errors import NotFound
from visa_proxy.policy.config import Base, Endpoint, Inner, RewriterConfig, ServerConfig
from visa_proxy.policy.resolve import PolicySet, Tenant
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.engine import named, served_name

_MODELS: Final = "/v1/models/"
_LOCAL: Final = "127.0.0.1"
_LOOPBACK: Final = frozenset(("localhost", _LOCAL, "::1"))
_INSIDE: Final = ("", 0)
"""The place of the server that we run in."""
_NONE: Final[frozenset[str]] = frozenset()


class Reserved:
    """Models and adapters that policies name for the rewriter, and the rewriter's own adapter, for each tenant whose base has them too.

    A base is frozen: a tenant's own adapter is refused as well. Names that a base is configured with stay, and so does the model that
    the rewriter is when no adapter is asked for, which may well be the base itself.
    """

    def __init__(self, config: ServerConfig, watcher: PolicyWatcher) -> None:
        rewriter = config.rewriter
        own, place = own_adapter(rewriter), _place_of_rewriter(rewriter)
        self._watcher = watcher
        self._bases = config.bases
        self._own = _NONE if own is None else frozenset((own,))
        self._free = frozenset(_frozen(rewriter)) - self._own
        self._shared = frozenset(name for name, base in config.bases.items() if place is not None and _place(base) == place)
        """Bases that are the rewriter's server."""
        self._policies: PolicySet | None = None
        self._names: dict[str, frozenset[str]] = {}
        """By tenant, of `_policies`."""

    def hides(self, tenant: Tenant, name: str) -> bool:
        """Whether `name` is the rewriter's; versions of an adapter are called `adapter@version`."""
        names = self._of(tenant)
        return bool(names) and (name in names or name.rpartition("@")[0] in names)

    def check(self, tenant: Tenant, name: str | None) -> None:
        """Raises NotFound, as a base does for a model that it does not have."""
        if name is not None and self.hides(tenant, name):
            raise NotFound(f"The model {name[:200]!r} does not exist.", param="model", code="model_not_found")

    def check_relayed(self, tenant: Tenant, path: str, body: bytes) -> None:
        """The model of a request that is passed on as it is, in its path or its JSON. Raises NotFound."""
        if self._of(tenant):
            for name in _asked(path, body):
                self.check(tenant, name)

    def _of(self, tenant: Tenant) -> frozenset[str]:
        policies = self._watcher.current
        if policies is not self._policies:
            names = (named(policies) | self._own) - self._free
            self._names = {each.name: self._hidden(each, names) for each in policies.tenants.values()} if self._shared else {}
            self._policies = policies
        return self._names.get(tenant.name, _NONE)

    def _hidden(self, tenant: Tenant, names: frozenset[str]) -> frozenset[str]:
        """Of `names`, those that would reach the rewriter through one of the tenant's bases."""
        asked = [tenant.base]
        # A second base with a model of its own is asked for that one, whatever the client named.
        if tenant.failover is not None and self._bases[tenant.failover].model is None:
            asked.append(tenant.failover)
        return names - {self._bases[base].model for base in asked} if self._shared.intersection(asked) else _NONE


def own_adapter(config: RewriterConfig) -> str | None:
    """The adapter that the rewriter is asked for where policies name none; None where that is a whole model."""
    if config.model is not None:
        return config.model
    name = None if config.endpoint is None else config.endpoint.model
    if name is None or config.adapters is None:
        return None
    found = config.adapters / name if isinstance(config.adapters, Path) else config.adapters.get(name)
    return name if found is not None and found.is_dir() else None


def _frozen(config: RewriterConfig) -> Iterator[str]:
    """What the rewriter's server calls the model itself."""
    if config.endpoint is not None and config.endpoint.model is not None:
        yield config.endpoint.model
    if config.launch is not None:
        yield served_name(config.launch)


def _place_of_rewriter(config: RewriterConfig) -> tuple[str, int] | None:
    """None for a launched one on a port that nobody else knows."""
    if config.endpoint is not None:
        return _place(config.endpoint)
    port = None if config.launch is None else config.launch.port
    return None if port is None else (_LOCAL, port)


def _place(address: Base) -> tuple[str, int] | None:
    """Host and port; None for a provider's model, which has a name of its own."""
    if isinstance(address, Inner):
        return _INSIDE
    if not isinstance(address, Endpoint):
        return None
    parts = urlsplit(address.url)
    host = (parts.hostname or "").rstrip(".")
    return _LOCAL if host in _LOOPBACK else host, parts.port or (443 if parts.scheme == "https" else 80)


def _asked(path: str, body: bytes) -> Iterator[str]:
    """The models that a request names."""
    if path.startswith(_MODELS):
        yield path.removeprefix(_MODELS).rstrip("/")
    data = _read(body)
    if isinstance(data, dict) and isinstance(data.get("model"), str):
        yield data["model"]


def _read(body: bytes) -> Any:
    """None where `body` is no JSON that a server in Python could read: that one takes NaN, and UTF-16 as well."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None
