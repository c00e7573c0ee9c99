"""visa-proxy as a guest: what a gateway's process needs to rewrite answers, without a server of our own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError
from visa_proxy.llm.http import new_session
from visa_proxy.policy.config import load_config
from visa_proxy.policy.resolve import PolicySet, Tenant
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.components import Components, check_installed, needs_shield
from visa_proxy.server.drafts import Drafts
from visa_proxy.server.engine import named
from visa_proxy.server.plan import Plan
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace

logger = logging.getLogger(__name__)

CONFIG_ENV: Final = "VISA_CONFIG"
"""Names visa.yaml."""


class Host:
    """The policies, models and texts under way of one visa.yaml."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError or MissingExtra. Bases are not looked at: the gateway has its own."""
        self._config = load_config(path)
        self._watcher = PolicyWatcher(self._config.policies, on_change=self._changed)
        if needs_shield(self._watcher.current):
            check_installed(self._config)
        self.drafts = Drafts(_ended)
        self._components: Components | None = None
        self._opening: asyncio.Task[Components] | None = None
        self._stack = contextlib.AsyncExitStack()

    @property
    def policies(self) -> PolicySet:
        """Those in force."""
        return self._watcher.current

    async def shield(self) -> Shield:
        """Loaded when it is first asked for, in the gateway's event loop. Raises ConfigError or MissingExtra when that fails."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="open visa-proxy")
        self._components = await asyncio.shield(self._opening)
        return await self._components.ensure()

    async def _open(self) -> Components:
        session = await self._stack.enter_async_context(new_session())
        await self._stack.enter_async_context(self._watcher)
        components = Components(self._config, session, models=named(self.policies))
        self._stack.push_async_callback(components.close)
        return components

    def _changed(self, policies: PolicySet) -> None:
        if self._components is not None:
            self._components.follow(policies)


def host_of(environ: Mapping[str, str] | None = None) -> Host:
    """The host of the visa.yaml that VISA_CONFIG names; one for all guardrails of this process. Raises ConfigError or MissingExtra."""
    given = (os.environ if environ is None else environ).get(CONFIG_ENV, "").strip()
    if not given:
        raise ConfigError([f"environment variable {CONFIG_ENV} is not set (or empty); it names visa.yaml"])
    return _host(Path(given).expanduser().resolve())


@functools.cache
def _host(path: Path) -> Host:
    # The gateway makes its guardrails by itself: nothing of ours could hand the models from one to the next.
    return Host(path)


def chosen(policies: PolicySet, tenant: str | None, profile: str | None) -> Tenant:
    """The tenant of that name, speaking with `profile` where a caller chooses none.

    `tenant` None: the only one; `profile` None: the policy's own default and experiments. Raises ConfigError naming what is allowed.
    """
    names = sorted(policies.tenants)
    if tenant is None and len(names) == 1:
        tenant = names[0]
    if tenant is None or tenant not in policies.tenants:
        raise ConfigError([f"tenant: found {tenant!r}; allowed: {', '.join(names) or 'none, there is no policy'}"])
    found = policies.tenants[tenant]
    if profile is None:
        return found
    if profile not in found.profiles:
        allowed = ", ".join(sorted(found.profiles))
        raise ConfigError([f"profile: tenant {tenant!r} has no profile {profile!r}; allowed: {allowed}"])
    return dataclasses.replace(found, default_profile=found.profiles[profile], experiments=())


def _ended(plan: Plan, trace: Trace) -> None:
    if trace.status.startswith("fallback:"):
        logger.warning("tenant=%s profile=%s %s", plan.tenant.name, plan.profile.name, trace.status)
