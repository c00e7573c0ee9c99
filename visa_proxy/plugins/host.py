"""visa-proxy as a guest: what a gateway's process needs to rewrite answers, without a server of our own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from visa_proxy.errors import ConfigError
from visa_proxy.llm.http import new_session
from visa_proxy.plugins.settings import config_path
from visa_proxy.policy.config import ServerConfig, load_config
from visa_proxy.policy.resolve import PolicySet, Tenant
from visa_proxy.policy.spaces import measured_space
from visa_proxy.policy.watch import PolicyWatcher
from visa_proxy.server.components import Components, check_installed, needs_shield
from visa_proxy.server.drafts import Drafts
from visa_proxy.server.engine import named
from visa_proxy.server.plan import Plan
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace

logger = logging.getLogger(__name__)


class Host:
    """The policies, models and texts under way of one visa.yaml."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError or MissingExtra. Bases are not looked at: the gateway has its own."""
        self._config = load_config(path)
        check_alone(self._config, path)
        space = measured_space(self._config.detector.spaces)
        self._watcher = PolicyWatcher(self._config.policies, space=space, on_change=self._changed)
        if needs_shield(self._watcher.current):
            check_installed(self._config)
        self.drafts = Drafts(_ended)
        self._components: Components | None = None
        self._opened: asyncio.Future[Components] | None = None
        self._living: asyncio.Task[None] | None = None

    @property
    def policies(self) -> PolicySet:
        """Those in force."""
        return self._watcher.current

    async def shield(self) -> Shield:
        """Loaded when it is first asked for, in the gateway's event loop. Raises ConfigError or MissingExtra when that fails."""
        if self._opened is None:
            loop = asyncio.get_running_loop()
            self._opened = loop.create_future()
            self._living = loop.create_task(self._live(self._opened), name="visa-proxy inside")
        self._components = await asyncio.shield(self._opened)
        return await self._components.ensure()

    async def _live(self, opened: asyncio.Future[Components]) -> None:
        """Until the gateway's event loop ends, which cancels what still runs in it: LiteLLM has no hook for guardrails at its end."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                session = await stack.enter_async_context(new_session())
                await stack.enter_async_context(self._watcher)
                components = Components(self._config, session, models=named(self.policies))
                stack.push_async_callback(components.close)
                opened.set_result(components)
                await asyncio.get_running_loop().create_future()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)

    def _changed(self, policies: PolicySet) -> None:
        if self._components is not None:
            self._components.follow(policies)


def host_of(environ: Mapping[str, str] | None = None) -> Host:
    """The host of the visa.yaml that VISA_CONFIG names; one for all guardrails of this process. Raises ConfigError or MissingExtra."""
    return _host(config_path(environ))


@functools.cache
def _host(path: Path) -> Host:
    # The gateway makes its guardrails by itself: nothing of ours could hand the models from one to the next.
    return Host(path)


def check_alone(
    config: ServerConfig, path: Path, *, argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """Raises ConfigError where each of several processes of the gateway would launch a rewriter of its own."""
    if config.rewriter.launch is None or not _several(
        sys.argv if argv is None else argv, os.environ if environ is None else environ
    ):
        return
    raise ConfigError(
        [
            f"{path}: rewriter: launch (the default) would start a rewriter in each of the gateway's workers; "
            "allowed: the url of one that runs beside it, or one worker (litellm --num_workers 1)"
        ]
    )


def _several(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether this is one of several worker processes: of uvicorn, which starts them as processes of its own, or of LiteLLM's gunicorn."""
    given = environ.get("NUM_WORKERS") or environ.get("DEFAULT_NUM_WORKERS_LITELLM_PROXY") or "1"
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--num_workers":
            given = value if equals else following
    return multiprocessing.parent_process() is not None or (given.strip().isdigit() and int(given) > 1)


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
