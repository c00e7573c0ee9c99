"""Who may see the page."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientResponse

from tests.fakes.base import FakeBase
from tests.fakes.policies import plain
from tests.fakes.proxy import Running, Starter
from visa_proxy.server.ui.access import _loopback
from visa_proxy.server.ui.routes import ui_routes
from visa_proxy.server.ui.session import ADDRESSES, COOKIE, LASTS_S, TRIES, Attempts, Sessions

ADMIN = "an-admin-key-that-is-long"
PAGES = ("/ui", "/ui/live", "/ui/experiments", "/ui/policies", "/ui/playground")
HTML = {"Accept": "text/html"}


def browser(proxy: Running) -> aiohttp.ClientSession:
    """One that brings no key, keeps cookies, and follows nothing by itself."""
    return aiohttp.ClientSession(proxy.url, cookie_jar=aiohttp.CookieJar(unsafe=True))


async def local(start: Starter, base: FakeBase) -> Running:
    return await start(base.url, text=plain())


async def keyed(start: Starter, base: FakeBase) -> Running:
    return await start(base.url, text=plain(), admin_key=ADMIN)


async def log_in(client: aiohttp.ClientSession, proxy: Running, key: str = ADMIN) -> ClientResponse:
    return await client.post("/ui/login", data={"key": key}, headers={"Origin": proxy.url, **HTML}, allow_redirects=False)


async def test_without_an_admin_key_this_machine_sees_every_page(start: Starter, base: FakeBase) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client:
        for path in PAGES:
            async with client.get(path) as got:
                assert got.status == 200, path
                assert "<main" in await got.text()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8080", "", "[::1"])
async def test_a_foreign_name_for_this_machine_is_refused(start: Starter, base: FakeBase, host: str) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client, client.get("/ui", headers={"Host": host}) as got:
        assert got.status in (400, 403)
        assert "acme" not in await got.text()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"])
async def test_names_of_this_machine_are_taken(start: Starter, base: FakeBase, host: str) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client, client.get("/ui", headers={"Host": host}) as got:
        assert got.status == 200


async def through(proxy: Running, peer: str | None, headers: dict[str, str]) -> int:
    """The status of GET /ui for a client at `peer`."""
    started: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/ui",
        "raw_path": b"/ui",
        "query_string": b"",
        "headers": named,
    }
    scope |= {
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": None if peer is None else (peer, 1),
        "root_path": "",
    }
    await ui_routes(proxy.gateway)[0].endpoint(scope, receive, send)
    return started[0]


@pytest.mark.parametrize(
    ("peer", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.1.2.3", 403), ("::ffff:10.1.2.3", 403), (None, 403)],
)
async def test_without_an_admin_key_only_loopback_peers_come_in(
    start: Starter, base: FakeBase, peer: str | None, status: int
) -> None:
    proxy = await local(start, base)
    assert await through(proxy, peer, {"host": "localhost"}) == status


def test_what_is_no_address_is_not_loopback() -> None:
    assert not _loopback("localhost.evil.example")


async def test_with_an_admin_key_even_this_machine_has_to_log_in(start: Starter, base: FakeBase) -> None:
    proxy = await keyed(start, base)
    async with browser(proxy) as client:
        for path in PAGES:
            async with client.get(path, headers=HTML, allow_redirects=False) as got:
                assert (got.status, got.headers["Location"]) == (303, "/ui/login")
        async with client.get("/ui/api/feed") as got:
            assert got.status == 401
        async with client.post("/ui/api/ask", json={}, headers={"Origin": proxy.url}) as got:
            assert got.status == 401


async def test_a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(start: Starter, base: FakeBase) -> None:
    proxy = await keyed(start, base)
    async with browser(proxy) as client:
        got = await log_in(client, proxy)
        assert (got.status, got.headers["Location"]) == (303, "/ui")
        cookie = got.headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        for part in ("HttpOnly", "SameSite=strict", "Path=/ui", f"Max-Age={LASTS_S}"):
            assert part.lower() in cookie.lower()
        assert ADMIN not in cookie
        async with client.get("/ui") as page:
            assert page.status == 200
            assert "Log out" in await page.text()
        async with client.post("/ui/logout", headers={"Origin": proxy.url}, allow_redirects=False) as out:
            assert out.headers["Location"] == "/ui/login"
        async with client.get("/ui", headers=HTML, allow_redirects=False) as page:
            assert page.status == 303


async def test_a_wrong_key_is_told_and_too_many_of_them_are_refused(start: Starter, base: FakeBase) -> None:
    proxy = await keyed(start, base)
    async with browser(proxy) as client:
        for _ in range(TRIES):
            got = await log_in(client, proxy, "wrong")
            assert got.status == 401
            assert "That is not the admin key" in await got.text()
            assert "Set-Cookie" not in got.headers
        got = await log_in(client, proxy)
        assert got.status == 429
        assert int(got.headers["Retry-After"]) >= 1
        async with client.get("/ui", headers={"Authorization": f"Bearer {ADMIN}"}) as page:
            assert page.status == 429


async def test_programs_bring_the_key_themselves(start: Starter, base: FakeBase) -> None:
    proxy = await keyed(start, base)
    async with browser(proxy) as client:
        async with client.get("/ui/policies", headers={"Authorization": f"Bearer {ADMIN}"}) as got:
            assert got.status == 200
        async with client.get("/ui/policies", headers={"Authorization": "Bearer wrong"}) as got:
            assert got.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://["},
    ],
)
@pytest.mark.parametrize("path", ["/ui/login", "/ui/logout", "/ui/api/ask", "/ui/api/profile"])
async def test_a_post_on_behalf_of_another_site_is_refused(
    start: Starter, base: FakeBase, path: str, headers: dict[str, str]
) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client, client.post(path, json={}, headers=headers, allow_redirects=False) as got:
        assert got.status == 403
        assert (await got.json())["error"]["code"] == "foreign_origin"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"}, {"Origin": "{url}"}])
async def test_a_post_of_the_page_itself_is_taken_behind_a_reverse_proxy_too(
    start: Starter, base: FakeBase, headers: dict[str, str]
) -> None:
    proxy = await keyed(start, base)
    given = {name: value.format(url=proxy.url) for name, value in headers.items()}
    async with (
        browser(proxy) as client,
        client.post("/ui/login", data={"key": ADMIN}, headers=given, allow_redirects=False) as got,
    ):
        assert got.status == 303


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_what_a_reverse_proxy_passes_on_does_not_come_from_this_machine(
    start: Starter, base: FakeBase, header: str
) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client, client.get("/ui", headers={header: "127.0.0.1"}) as got:
        assert got.status == 403


async def test_another_site_cannot_watch_the_feed(start: Starter, base: FakeBase) -> None:
    proxy = await local(start, base)
    async with browser(proxy) as client, client.get("/ui/api/feed", headers={"Sec-Fetch-Site": "cross-site"}) as got:
        assert got.status == 403


async def test_every_answer_binds_the_browser(start: Starter, base: FakeBase) -> None:
    proxy = await keyed(start, base)
    async with browser(proxy) as client:
        await log_in(client, proxy)
        for path in (*PAGES, "/ui/login", "/ui/static/page.css", "/ui/nothing", "/ui/static/nothing", "/ui/api/ask"):
            async with client.get(path, headers=HTML) as got:
                rules = got.headers["Content-Security-Policy"]
                assert "default-src 'none'" in rules
                assert "frame-ancestors 'none'" in rules
                assert "unsafe" not in rules and "http" not in rules and "*" not in rules
                assert got.headers["X-Content-Type-Options"] == "nosniff"
                assert "Access-Control-Allow-Origin" not in got.headers
                assert got.status in ((200,) if path in PAGES or "page.css" in path or "login" in path else (404, 405))


async def test_no_page_has_a_script_or_a_style_of_its_own(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), admin_key=ADMIN)
    async with browser(proxy) as client:
        texts = [await (await client.get("/ui/login")).text()]
        await log_in(client, proxy)
        texts += [await (await client.get(path)).text() for path in PAGES]
    for text in texts:
        assert not re.search(r"<script(?![^>]*\bsrc=\"/ui/static/)", text)
        assert not re.search(r"<style|\sstyle=|\son\w+=\"|javascript:", text)
        assert not re.findall(r"(?:src|href|action)=\"(?!/ui)[^\"]*\"", text.replace('href="#main"', ""))


def test_a_session_ends_and_cannot_be_made_up() -> None:
    now = 1_000_000.0
    sessions = Sessions(ADMIN, lambda: now)
    cookie = sessions.new()
    assert sessions.valid(cookie)
    assert not Sessions("another-key", lambda: now).valid(cookie)
    ends, _, rest = cookie.partition(".")
    assert not sessions.valid(f"{int(ends) + 1}.{rest}")
    for made_up in ("", ".", "..", "é", f"{cookie}0", cookie[:-1], "9999999999.aa."):
        assert not sessions.valid(made_up)
    now += LASTS_S
    assert not sessions.valid(cookie)


def test_wrong_keys_are_forgotten_after_a_minute_and_remembered_for_few_addresses() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(TRIES):
        attempts.check("a")
        attempts.failed("a")
    with pytest.raises(Exception, match="Too many"):
        attempts.check("a")
    attempts.check("b")
    now += 61
    attempts.check("a")
    for number in range(ADDRESSES + 10):
        attempts.failed(str(number))
    assert len(attempts._failed) == ADDRESSES
