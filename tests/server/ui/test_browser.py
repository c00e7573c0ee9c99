"""People's way through the page, in a real browser, on the real demo.

SCREENSHOTS=docs python -m pytest tests/server/ui/test_browser.py writes the pictures of docs/ui.md again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI, omit
from playwright.sync_api import Browser, Page, expect

from tests.demo.conftest import ROOT, START_S, Demo
from tests.fakes.policies import plain
from tests.server.ui.chromium import launched, opened, serious

TENANT, KEY = "acme-outdoors", "sk-acme-outdoors-demo"
PATHS = ("/ui", "/ui/live", "/ui/experiments", "/ui/policies", "/ui/playground")
ADMIN = "an-admin-key-that-is-long"
PICTURES = os.environ.get("SCREENSHOTS")
SLIDER = 'input[name="conformity"]'


@dataclass(frozen=True)
class Site:
    """A demo and the folder of its policies."""

    demo: Demo
    policies: Path

    @property
    def url(self) -> str:
        return self.demo.url

    def ask(self, question: str, user: str = "", **headers: str) -> str:
        """What a client gets: "profile: text"."""
        client = OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=60)
        raw = client.chat.completions.with_raw_response.create(
            model="sample", messages=[{"role": "user", "content": question}], user=user or omit, extra_headers=headers
        )
        return f"{raw.headers['x-visa-profile']}: {raw.parse().choices[0].message.content}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`visa-proxy demo` on policies that may be edited."""
    folder = tmp_path_factory.mktemp("site")
    policies = Path(shutil.copytree(ROOT / "policies", folder / "policies"))
    with process(folder, "demo", "--policies", str(policies)) as demo:
        wait(demo, START_S)
        yield Site(demo, policies)


@contextlib.contextmanager
def process(folder: Path, *command: str, **environment: str) -> Iterator[Demo]:
    """A `visa-proxy` process on a port that the system chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / "log"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "visa_proxy", *command, "--port", str(port)],
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **environment},
        )
    try:
        yield Demo(port, started.pid, log)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(30)


def wait(demo: Demo, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not demo.ready():
        assert time.monotonic() < deadline, demo.log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


def picture(page: Page, name: str, *, full: bool = False) -> None:
    """Where they are asked for."""
    if PICTURES:
        from PIL import Image

        taken = Image.open(io.BytesIO(page.screenshot(full_page=full, animations="disabled")))
        taken.convert("RGB").quantize(128).save(ROOT / PICTURES / f"ui-{name}.png", optimize=True)


def asked(page: Page) -> None:
    """Press the button and wait for both answers."""
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#status")).to_contain_text("Done:")
    expect(page.locator("#base del, #base mark").first).to_be_visible()


def drawn(page: Page, kind: str) -> str:
    """The line of a kind on the radar; "" for one that is not there."""
    line = page.locator(f"#radar path[data-kind={kind}]")
    return (line.get_attribute("d") or "") if line.get_attribute("visibility") == "visible" else ""


def test_a_voice_is_tried_saved_and_used(site: Site, browser: Browser) -> None:
    with opened(browser) as page:
        page.goto(f"{site.url}/ui/playground")
        expect(page.locator("#tenant")).to_have_value(TENANT)
        expect(page.locator('input[name="stimulation"]')).to_have_value("1")
        assert drawn(page, "target") and not drawn(page, "before") and not drawn(page, "after")
        asked(page)
        base, first = page.locator("#base").inner_text(), page.locator("#rewritten").inner_text()
        assert base and first and base != first
        before = {kind: drawn(page, kind) for kind in ("before", "target", "after")}
        assert all(before.values()) and len(set(before.values())) == 3
        picture(page, "playground", full=True)

        slider = page.locator(SLIDER)
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        expect(slider).to_have_value("1")
        expect(slider).to_have_attribute("aria-valuetext", "+1")
        assert drawn(page, "target") != before["target"] and not drawn(page, "after")
        page.locator('input[name="stimulation"]').focus()
        page.keyboard.press("Home")
        asked(page)
        assert page.locator("#base").inner_text() == base
        assert page.locator("#rewritten").inner_text() != first
        assert drawn(page, "before") == before["before"]
        assert drawn(page, "after") != before["after"] and drawn(page, "target") != before["target"]

        page.get_by_label("Name").fill("orderly")
        page.get_by_role("button", name="Print the YAML").click()
        expect(page.locator("#yaml")).to_contain_text("conformity: 1.0")
        expect(page.locator("#saved")).to_be_focused()
        file = site.policies / page.locator("#file").inner_text()
        entry, permission = page.locator("#yaml").text_content() or "", page.locator("#permission").text_content() or ""
        code = page.locator("#python").text_content() or ""
        text = file.read_text(encoding="utf-8").replace("profiles:\n", f"profiles:\n{entry}", 1)
        file.write_text(re.sub(r"^request:\n  profiles: .*\n", permission, text, count=1, flags=re.M), encoding="utf-8")
        deadline = time.monotonic() + 10
        while page.goto(f"{site.url}/ui/policies") and not page.get_by_text("orderly", exact=True).count():
            assert time.monotonic() < deadline, page.locator("main").inner_text()
            time.sleep(0.2)
        expect(page.get_by_text("All files are valid and in force.")).to_be_visible()
        answer = site.ask("How should I plan my working day?", **{"X-Visa-Profile": "orderly"})
        assert answer == f"orderly: {used(code).strip()}"
        assert answer != f"orderly: {base}"


def used(code: str) -> str:
    """What the printed program prints."""
    printed = io.StringIO()
    os.environ["VISA_KEY"] = KEY
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "printed", "exec"), {})
    finally:
        del os.environ["VISA_KEY"]
    return printed.getvalue()


def test_answers_are_seen_while_they_leave(site: Site, browser: Browser) -> None:
    with opened(browser) as page:
        page.goto(f"{site.url}/ui/live")
        expect(page.locator("#state")).to_contain_text("Watching")
        for number in range(3):
            site.ask("How should I plan my working day?", user=f"person-{number}")
        expect(page.locator("#answers tbody tr")).to_have_count(3)
        row = page.locator("#answers tbody tr").first
        expect(row).to_contain_text(TENANT)
        expect(row).to_contain_text("bold-vs-off/")
        assert "working day" not in page.locator("#answers").inner_text()
        page.get_by_label("Tenant").select_option("hartwell-mutual")
        expect(row).to_be_hidden()
        page.get_by_label("Tenant").select_option("all")
        picture(page, "live")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        site.ask("How do I boil an egg?", user="user-9")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#state")).to_contain_text("Watching")
        expect(page.locator("#answers tbody tr")).to_have_count(3)
        assert not serious(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_a_phone(site: Site, browser: Browser, scheme: str) -> None:
    with opened(browser, color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
        for path in PATHS:
            page.goto(site.url + path)
            assert not serious(page, colours_only=scheme == "dark"), path
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        asked(page)
        page.get_by_label("Name").fill("kept")
        page.get_by_role("button", name="Print the YAML").click()
        expect(page.locator("#saved")).to_be_focused()
        assert not serious(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        if scheme == "dark":
            page.evaluate("scrollTo(0, document.querySelector('fieldset').offsetTop)")
            picture(page, "phone")


def test_a_page_is_there_within_a_second(site: Site, browser: Browser) -> None:
    timing = "(() => { const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime; })()"
    size = "performance.getEntries().reduce((sum, each) => sum + (each.transferSize || 0), 0)"
    for path in PATHS:
        took: list[float] = []
        while not took or (min(took) > 1000 and len(took) < 3):  # again, where something else kept the machine busy
            with opened(browser) as page:  # a context of its own: nothing is cached
                page.goto(site.url + path)
                took.append(page.evaluate(timing))
                assert 5_000 < page.evaluate(size) <= 300_000, path
        assert 0 < min(took) <= 1000, path


def test_the_overview_draws_what_was_measured(site: Site, browser: Browser) -> None:
    deadline = time.monotonic() + 15
    with opened(browser) as page:
        for user in range(6):
            site.ask("How should I plan my working day?", user=f"person-{user}")
        while page.goto(f"{site.url}/ui") and not page.locator("figure svg.radar path.after").count():
            assert time.monotonic() < deadline, page.locator("main").inner_text()
            time.sleep(0.3)
        described = page.locator("figure svg.radar title").text_content() or ""
        assert "target: " in described and "Stimulation" in described
        picture(page, "overview")
        page.get_by_label("Tenant").select_option("pebble-and-friends")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview of pebble-and-friends")
        page.goto(f"{site.url}/ui/experiments")
        expect(page.get_by_role("heading", name="acme-outdoors: bold-vs-off")).to_be_visible()
        assert not serious(page)
        picture(page, "experiments")


def test_the_keyboard_gets_past_the_menu(site: Site, browser: Browser) -> None:
    with opened(browser) as page:
        page.goto(f"{site.url}/ui/playground")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator("#tenant")).to_be_focused()


def test_a_key_lets_in_and_out(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "plain.yaml").write_text(plain())
    config = tmp_path / "visa.yaml"
    config.write_text(
        "server: {admin_key_env: UI_TEST_ADMIN}\npolicies: ./policies\nbases: {default: {url: 'http://127.0.0.1:9/v1'}}\n"
    )
    with process(tmp_path, "serve", "--config", str(config), UI_TEST_ADMIN=ADMIN) as served, opened(browser) as page:
        wait(served, 30)
        page.goto(f"{served.url}/ui/policies")
        expect(page).to_have_url(f"{served.url}/ui/login")
        assert not serious(page)
        page.get_by_label("Admin key").fill(ADMIN)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{served.url}/ui")
        [cookie] = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        page.get_by_role("link", name="Policies").click()
        expect(page.get_by_role("heading", name="plain")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{served.url}/ui/login")
        page.goto(f"{served.url}/ui/policies")
        expect(page).to_have_url(f"{served.url}/ui/login")
