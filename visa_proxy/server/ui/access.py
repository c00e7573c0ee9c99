"""Who may see the page, from where, and what their browser may do with it."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from visa_proxy.errors import AuthenticationError, PermissionDenied, VisaError, error_body
from visa_proxy.server.auth import bearer
from visa_proxy.server.types import App, Message, Receive, Scope, Send
from visa_proxy.server.ui.session import COOKIE, Attempts, Sessions, same

logger = logging.getLogger("visa_proxy.requests")

ROOT: Final = "/ui"
LOGIN: Final = "/ui/login"
API: Final = "/ui/api/"
STATIC: Final = "/ui/static/"
_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))
"""What a browser on this machine calls it. Any other name may be an outsider's that was made to point here (DNS rebinding)."""
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Whoever sends one of these passes on what somebody else asked."""
_CONTENT: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _CONTENT,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # no-referrer would make the Origin of our own forms "null".
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Door:
    """Lets requests through to `inside`, an app, or refuses them. Adds the headers that bind the browser to every answer."""

    def __init__(self, inside: App, admin_key: str | None, refuse: Callable[[Request, VisaError], Response]) -> None:
        """`admin_key`: whoever has it may come in, from anywhere; None: whoever is on this machine. `refuse`: says so to the others."""
        self._inside = inside
        self._refuse = refuse
        self._key = admin_key
        self.sessions = None if admin_key is None else Sessions(admin_key)
        self.attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope, receive)
        answer: App = self._inside
        try:
            answer = self._stopped(request) or answer
        except VisaError as error:
            answer = self._refuse(request, error)
        try:
            await answer(scope, receive, bound)
        except Exception as error:
            # The app has answered with status 500. The message may quote a text; the place it came from is what helps.
            detailed = logger.isEnabledFor(logging.DEBUG)
            logger.error("%s failed: %s", scope["path"][:100], type(error).__name__, exc_info=detailed)

    def _stopped(self, request: Request) -> Response | None:
        """None for those who may go on; else what they are told, or raises VisaError."""
        path = request.url.path
        known = self._with_key(request)
        if self._key is None:
            _check_local(request)
        elif not known and not self._logged_in(request) and path != LOGIN and not path.startswith(STATIC):
            if request.method == "GET" and not path.startswith(API):
                return RedirectResponse(LOGIN, status_code=303)
            raise AuthenticationError("Log in at /ui/login, or send Authorization: Bearer and the admin key.")
        if not known:
            _check_site(request)
        return None

    def _with_key(self, request: Request) -> bool:
        """Whether the request itself brings the admin key. Raises AuthenticationError for a wrong one."""
        given = bearer(dict(request.scope["headers"]))
        if self._key is None or given is None:
            return False
        self.enter(request, given)
        return True

    def _logged_in(self, request: Request) -> bool:
        return self.sessions is not None and self.sessions.valid(request.cookies.get(COOKIE, ""))

    def enter(self, request: Request, given: str) -> None:
        """Raises AuthenticationError when `given` is not the admin key, RateLimited when this address has guessed too often."""
        address = "" if request.client is None else request.client.host
        self.attempts.check(address)
        if self._key is None or not same(given, self._key):
            self.attempts.failed(address)
            raise AuthenticationError("That is not the admin key.")


def refusal(error: VisaError) -> Response:
    """An error for programs."""
    return JSONResponse(error_body(error), status_code=error.status, headers=error.headers)


def _check_local(request: Request) -> None:
    passed_on = any(name in request.headers for name in _FORWARDED)
    if passed_on or request.client is None or not _loopback(request.client.host):
        raise PermissionDenied(
            "This page is for the machine that the proxy runs on; `server.admin_key_env` in visa.yaml opens it to others, by key.",
            code="not_local",
        )
    host = _hostname(request.headers.get("host", ""))
    if host not in _NAMES:
        raise PermissionDenied("This page is at http://localhost and http://127.0.0.1 only.", code="foreign_host")


def _check_site(request: Request) -> None:
    """What a browser sends on behalf of another site is refused, where anything is done or told."""
    site = request.headers.get("sec-fetch-site")
    if request.method in ("GET", "HEAD"):
        if request.url.path.startswith(API) and site not in (None, "same-origin", "none"):
            raise PermissionDenied("Requests of other sites are not answered.", code="foreign_origin")
        return
    # Browsers say where a request comes from, scripts cannot change it, and a reverse proxy may have changed the host. Over plain HTTP to
    # another machine they say nothing of it; then the origin has to be ours.
    origin = request.headers.get("origin", "")
    ours = site == "same-origin" if site is not None else _netloc(origin) == request.headers.get("host", "")
    if not ours:
        raise PermissionDenied(
            "This has to come from the page itself: the header Origin is missing, or another's.", code="foreign_origin"
        )


def _loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _netloc(origin: str) -> str | None:
    """Host and port; None for what is no origin, such as "null"."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    """Without the port, lower case; None for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
