"""Where everything of the page is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from visa_proxy.errors import AuthenticationError, MissingExtra, NotFound, RateLimited, RequestError, VisaError
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.types import App, Receive, Scope, Send
from visa_proxy.server.ui.access import API, LOGIN, ROOT, Door, refusal
from visa_proxy.server.ui.api import Api, body
from visa_proxy.server.ui.pages import Pages
from visa_proxy.server.ui.session import COOKIE, LASTS_S
from visa_proxy.server.ui.shelf import Shelf


def ui_routes(gateway: Gateway) -> list[Route]:
    """/ui and what is below."""
    page = _Unbuilt(gateway)
    return [Route(ROOT, page), Route(f"{ROOT}/{{path:path}}", page)]


class _Unbuilt:
    """Builds the page when somebody looks at it for the first time: most proxies are never looked at."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._built: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._built is None:
            try:
                self._built = _build(self._gateway)
            except MissingExtra as error:
                await PlainTextResponse(f"{error.message}\n", status_code=501)(scope, receive, send)
                return
        await self._built(scope, receive, send)


def _build(gateway: Gateway) -> App:
    pages, api = Pages(gateway, Shelf(gateway.config)), Api(gateway)
    entrance = _Entrance(pages)
    inside = Starlette(
        routes=[
            Route("/ui", pages.overview),
            Route("/ui/", pages.overview),
            Route("/ui/live", pages.live),
            Route("/ui/experiments", pages.experiments),
            Route("/ui/policies", pages.policies),
            Route("/ui/playground", pages.playground),
            Route(LOGIN, entrance.show, methods=["GET"]),
            Route(LOGIN, entrance.enter, methods=["POST"]),
            Route("/ui/logout", entrance.leave, methods=["POST"]),
            Route("/ui/api/feed", api.feed),
            Route("/ui/api/ask", api.ask, methods=["POST"]),
            Route("/ui/api/profile", api.profile, methods=["POST"]),
            Mount("/ui/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        exception_handlers={VisaError: entrance.failed, HTTPException: entrance.lost},
    )
    door = Door(inside, gateway.config.admin_key, refuse=entrance.refuse)
    entrance.door = door
    return door


class _Entrance:
    """Logging in and out, and what those see who are not let in."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self.door: Door | None = None

    async def show(self, request: Request) -> Response:
        """GET /ui/login"""
        if self._door.sessions is None:
            return RedirectResponse(ROOT, status_code=303)
        return self._pages.login(request)

    async def enter(self, request: Request) -> Response:
        """POST /ui/login: the form's `key`."""
        if self._door.sessions is None:
            return RedirectResponse(ROOT, status_code=303)
        given = parse_qs((await body(request, "application/x-www-form-urlencoded")).decode("utf-8", "replace")).get("key", [""])[
            0
        ]
        try:
            self._door.enter(request, given)
        except (AuthenticationError, RateLimited) as error:
            answer = self._pages.login(request, error.message, error.status)
            answer.headers.update(error.headers)
            return answer
        answer = RedirectResponse(ROOT, status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, self._door.sessions.new(), max_age=LASTS_S, path=ROOT, httponly=True, samesite="strict", secure=secure
        )
        return answer

    async def leave(self, request: Request) -> Response:
        """POST /ui/logout"""
        answer = RedirectResponse(LOGIN, status_code=303)
        answer.delete_cookie(COOKIE, path=ROOT, httponly=True, samesite="strict")
        return answer

    async def failed(self, request: Request, error: Exception) -> Response:
        """An error of ours, raised while a request was answered."""
        assert isinstance(error, VisaError)
        return self.refuse(request, error)

    async def lost(self, request: Request, error: Exception) -> Response:
        """Nothing is here, or not by this method."""
        assert isinstance(error, HTTPException)
        missing = error.status_code == 404
        found: VisaError = NotFound("There is no such page.") if missing else RequestError(str(error.detail))
        found.status = error.status_code
        return self.refuse(request, found)

    def refuse(self, request: Request, error: VisaError) -> Response:
        """An error, as a page for people and as JSON for programs."""
        path = request.url.path
        if path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
            return refusal(error)
        heading = "No such page" if isinstance(error, NotFound) else "Not possible"
        answer = self._pages.refused(request, heading, error.message, error.status)
        answer.headers.update(error.headers)
        return answer

    @property
    def _door(self) -> Door:
        assert self.door is not None
        return self.door
