"""A real browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS: Final = 30_000
"""For anything on a page."""


def executable() -> str:
    """The path of Chromium. Fails the test where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("there is no Chromium: install it (Debian: apt-get install chromium), or set CHROMIUM to its path")
    return found


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Without a window; --no-sandbox, because root and containers have none to give."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, **settings: Any) -> Iterator[Page]:
    """A page of a browser that knows nothing yet. Fails when a script fails, or something breaks the content security policy."""
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    context: BrowserContext = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    context.set_default_timeout(WAIT_MS)
    try:
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
    finally:
        context.close()
    assert not wrong


def serious(page: Page, *, colours_only: bool = False) -> list[str]:
    """What axe-core finds on the page that is serious or critical. `colours_only`: of the rules, that of contrast alone."""
    options = {"resultTypes": ["violations", "passes"], **({"runOnly": ["color-contrast"]} if colours_only else {})}
    found = Axe().run(page, options=options).response
    assert found["passes"], "axe has looked at nothing"
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
