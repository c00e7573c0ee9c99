"""The pages, rendered here: a browser without JavaScript can read all but the two that are live."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import visa_proxy
from visa_proxy.errors import VisaError
from visa_proxy.optional import need
from visa_proxy.policy.spaces import measured_space
from visa_proxy.policy.summary import Summary, line, summaries
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.ui import described, overview
from visa_proxy.server.ui.access import LOGIN
from visa_proxy.server.ui.session import LASTS_S
from visa_proxy.server.ui.shelf import Shelf
from visa_proxy.server.ui.trials import Trial, trial

PAGES: Final = (
    ("/ui", "Overview"),
    ("/ui/live", "Live"),
    ("/ui/experiments", "Experiments"),
    ("/ui/policies", "Policies"),
    ("/ui/playground", "Playground"),
)
READERS: Final = 2
"""Looks into the store at the same time: they take threads that others need, too."""
_TRIALS: Final = 50
"""Experiments on one page."""


class Pages:
    """What the gateway knows, as HTML."""

    def __init__(self, gateway: Gateway, shelf: Shelf) -> None:
        """Raises MissingExtra."""
        jinja = need("jinja2", extra="ui")
        self._gateway = gateway
        self._shelf = shelf
        self._space = measured_space(gateway.config.detector.spaces)
        self._reading = asyncio.Semaphore(READERS)
        self._templates: Any = jinja.Environment(
            loader=jinja.PackageLoader("visa_proxy.server.ui"),
            autoescape=True,
            undefined=jinja.StrictUndefined,
            auto_reload=False,
        )

    async def overview(self, request: Request) -> Response:
        """GET /ui?tenant=…&profile=…"""
        tenants = list(self._gateway.watcher.current.tenants)
        asked = request.query_params.get("tenant", "")
        tenant = asked if asked in tenants else next(iter(tenants), "")
        found, problem, profiles = overview.Overview(), "", list[str]()
        profile = request.query_params.get("profile", "")
        if tenant and self._shelf.stored:
            try:
                since = time.time() - overview.DAYS * 86_400
                async with self._reading:
                    rows = await asyncio.to_thread(self._shelf.exposures, tenant, since=since, limit=overview.MOST)
                profiles = sorted({row.exposure.profile for row in rows})
                profile = profile if profile in profiles else ""
                found = overview.of_exposures(row.exposure for row in rows if profile in ("", row.exposure.profile))
            except VisaError as error:
                problem = error.message
        if tenant and (problem or not self._shelf.stored):
            found = overview.of_counters(self._gateway.metrics.render().decode(), tenant)
        return self.render(
            request,
            "overview.html",
            tenants=tenants,
            tenant=tenant,
            profiles=profiles,
            profile=profile,
            found=found,
            problem=problem,
            stored=self._shelf.stored,
            days=overview.DAYS,
            most=overview.MOST,
            axes=described.axes(described.circle_of(self._space)),
        )

    async def live(self, request: Request) -> Response:
        """GET /ui/live"""
        workers, tenants = self._gateway.config.workers, list(self._gateway.watcher.current.tenants)
        return self.render(request, "feed.html", tenants=tenants, workers=workers)

    async def experiments(self, request: Request) -> Response:
        """GET /ui/experiments"""
        planned = summaries(self._gateway.watcher.current, time.time())
        found: list[Trial] = []
        problem = ""
        if self._shelf.stored:
            try:
                async with self._reading:
                    found = await asyncio.to_thread(self._trials, planned)
            except VisaError as error:
                problem = error.message
        told = {(each.tenant, each.name) for each in found}
        return self.render(
            request,
            "experiments.html",
            problem=problem,
            stored=self._shelf.stored,
            trials=[
                {"tenant": each.tenant, "name": each.name, "summary": each.summary, "found": each, "text": _text(each)}
                for each in found
            ],
            summaries=[
                {"tenant": each["tenant"], "text": line(each)} for each in planned if (each["tenant"], each["name"]) not in told
            ],
        )

    async def policies(self, request: Request) -> Response:
        """GET /ui/policies"""
        watcher, engine = self._gateway.watcher, self._gateway.engine
        return self.render(
            request,
            "policies.html",
            folder=str(watcher.directory),
            problems=watcher.problems,
            adapters=[] if engine is None else sorted(engine.adapters.items()),
            tenants=[described.policy(tenant, watcher.problems) for tenant in watcher.current.tenants.values()],
        )

    async def playground(self, request: Request) -> Response:
        """GET /ui/playground?tenant=…"""
        gateway, circle = self._gateway, described.circle_of(self._space)
        tenants = gateway.watcher.current.tenants
        return self.render(
            request,
            "playground.html",
            tenants=[described.voice(tenant, gateway.default_model(tenant)) for tenant in tenants.values()],
            chosen=request.query_params.get("tenant", ""),
            state=gateway.components.state,
            circle=described.axes(circle),
            opposites=described.opposites(circle),
            others=described.axes(self._space)[len(circle) :],
            question="How should I plan my working day?",
        )

    def login(self, request: Request, problem: str = "", status: int = 200) -> Response:
        """The form; `problem`: why the last try failed."""
        return self.render(request, "login.html", status=status, problem=problem, hours=LASTS_S // 3600)

    def refused(self, request: Request, heading: str, message: str, status: int) -> Response:
        """For people, in the place of a page."""
        return self.render(request, "refused.html", status=status, heading=heading, message=message)

    def render(self, request: Request, template: str, *, status: int = 200, **told: Any) -> Response:
        """A page in its frame."""
        path = request.url.path
        keyed = self._gateway.config.admin_key is not None and path != LOGIN
        frame = {
            "here": path.rstrip("/"),
            "pages": () if path == LOGIN else PAGES,
            "log_out": keyed,
            "version": visa_proxy.__version__,
        }
        return HTMLResponse(self._templates.get_template(template).render(**frame, **told), status_code=status)

    def _trials(self, planned: list[Summary]) -> list[Trial]:
        """Those of the policies and those that only the store knows. Reads and computes: not for the event loop."""
        by_name = {(each["tenant"], each["name"]): each for each in planned}
        names = list(dict.fromkeys([*by_name, *self._shelf.experiments()]))[:_TRIALS]
        return [trial(*name, by_name.get(name), self._shelf.exposures_of(*name)) for name in names]


def _text(found: Trial) -> str:
    return "" if found.summary is None else line(found.summary)
