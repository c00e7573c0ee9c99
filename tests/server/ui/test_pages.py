"""What the pages say."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.fakes.base import FakeBase
from tests.fakes.http import until
from tests.fakes.policies import KEY, plain, policy, write
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.policy.config import ComponentConfig
from visa_proxy.policy.keys import hash_key
from visa_proxy.server.components import Instruments
from visa_proxy.server.ui import routes
from visa_proxy.values import load_space

BODY = {"model": "sample", "messages": [{"role": "user", "content": "How?"}]}
MAX_FIRST_LOAD = 300_000
MAX_FIRST_LOAD_S = 1.0


async def page(proxy: Running, path: str) -> str:
    got = await proxy.get(path, {"Accept": "text/html"})
    assert got.status == 200, path
    return got.body.decode()


async def first_load(proxy: Running, path: str) -> int:
    """Bytes of a page and of all that it asks for, scripts of scripts included."""
    found = {path: (await proxy.get(path)).body}
    while wanted := {
        link if link.startswith("/") else f"/ui/static/{link.removeprefix('./')}"
        for body in found.values()
        for link in re.findall(r"(?:(?:src|href)=\"(?=/ui/static/)|from \")([^\"]+)\"", body.decode())
    } - set(found):
        bodies = await asyncio.gather(*(proxy.get(link) for link in wanted))
        assert all(body.status == 200 for body in bodies), wanted
        found |= {link: body.body for link, body in zip(wanted, bodies, strict=True)}
    assert any(link.endswith(".css") for link in found)
    return sum(map(len, found.values()))


@pytest.mark.parametrize("path", ["/ui", "/ui/live", "/ui/experiments", "/ui/policies", "/ui/playground"])
async def test_a_first_load_is_small_and_quick(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, path: str
) -> None:
    proxy = await start(base.url, rewriter.url, text=policy(), instruments=instruments)
    started = time.perf_counter()
    size = await first_load(proxy, path)
    took = time.perf_counter() - started
    assert 5_000 < size <= MAX_FIRST_LOAD
    assert took <= MAX_FIRST_LOAD_S


async def test_without_a_store_the_overview_counts_and_says_how_to_add_one(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    assert "has had no answers yet" in await page(proxy, "/ui")
    for _ in range(3):
        await proxy.post(BODY)
    text = await page(proxy, "/ui?tenant=plain")
    assert "store: sqlite:///visa.db" in text
    assert "3 answers" in text
    assert re.search(r"passthrough</span></td><td class=\"number\">3</td><td class=\"number\">100.0 %", text)


async def test_the_overview_shows_what_the_store_holds(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, tmp_path: Path
) -> None:
    proxy = await start(base.url, rewriter.url, text=policy(), instruments=instruments, store=f"sqlite:///{tmp_path / 'visa.db'}")
    replies = [await proxy.post(BODY, {"X-Visa-Profile": profile}) for profile in ("bold", "bold", "off")]
    visa = replies[0].json["visa"]
    text = await shown(proxy, "/ui", "3 answers of the last 7 days")
    assert "store: sqlite" not in text
    assert re.search(r"adapted</span></td><td class=\"number\">2</td><td class=\"number\">66.7 %", text)
    [told] = re.findall(r'data-vectors="([^"]*)"', text)
    vectors = json.loads(html.unescape(told))
    assert vectors == visa["values"]
    assert f"{visa['similarity']['before']:+.2f} → {visa['similarity']['after']:+.2f}" in text
    off = await page(proxy, "/ui?tenant=acme&profile=off")
    assert "1 answer of the last 7 days with the profile off" in off and "data-vectors" not in off


async def shown(proxy: Running, path: str, wanted: str) -> str:
    """The page, as soon as it says `wanted`: rows are written a moment after the answers left."""
    deadline = time.monotonic() + 10
    while wanted not in (text := await page(proxy, path)):
        assert time.monotonic() < deadline, text
        await asyncio.sleep(0.1)
    return text


async def test_experiments_are_analysed_with_the_weights_of_the_policy(start: Starter, base: FakeBase, tmp_path: Path) -> None:
    text = plain().replace("{off: passthrough}", "{off: passthrough, on: passthrough}")
    text += "experiments: [{name: a-a, unit: user, arms: {off: 50, on: 50}}]\n"
    proxy = await start(base.url, text=text, store=f"sqlite:///{tmp_path / 'visa.db'}")
    for user in range(40):
        await proxy.post({**BODY, "user": f"user-{user % 20}"})
    found = await shown(proxy, "/ui/experiments", "20 units, 40 requests")
    assert "off (control)" in found
    arms = re.findall(
        r'<th scope="row">(\w+).*?</th>\s*<td class="number">50.0 %</td><td class="number">(\d+)</td><td class="number">(\d+)',
        found,
    )
    assert [name for name, _, _ in arms] == ["off", "on"]
    assert sum(int(units) for _, units, _ in arms) == 20
    assert all(int(requests) == 2 * int(units) for _, units, requests in arms)


def spoil(folder: Path) -> None:
    for each in folder.glob("visa.db*"):
        each.write_bytes(b"no database" * 1000)


async def test_a_store_that_cannot_be_read_is_said_and_the_counters_are_shown(
    start: Starter, base: FakeBase, tmp_path: Path
) -> None:
    file = tmp_path / "visa.db"
    proxy = await start(base.url, text=plain(), store=f"sqlite:///{file}")
    await proxy.post(BODY)
    await shown(proxy, "/ui", "1 answer of the last")
    await asyncio.to_thread(spoil, tmp_path)
    text = await page(proxy, "/ui")
    assert "store: cannot be read" in text and "1 answer since this proxy was started" in text
    assert "store: cannot be read" in await page(proxy, "/ui/experiments")


async def test_policies_are_shown_without_keys(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    text = await page(proxy, "/ui/policies")
    assert "All files are valid and in force." in text
    assert "acme.yaml" in text and "passthrough" in text
    assert hash_key(KEY).removeprefix("sha256:") not in text and KEY not in text


async def test_a_broken_policy_is_shown_with_its_place_and_as_text(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    write(proxy.policies, plain().replace("request:", "'<script>alert(1)</script>': 1\nrequest:"))
    await until(lambda: bool(proxy.gateway.watcher.problems))
    text = await page(proxy, "/ui/policies")
    assert 'role="alert"' in text
    assert "acme.yaml:5:" in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "an older version is in force" in text


async def test_what_a_policy_says_is_text_on_every_page(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    nasty = """'\\"><img src=x onerror=alert(1)>'"""
    text = policy().replace('"Make it kinder and more caring."', nasty)
    assert nasty in text
    proxy = await start(base.url, rewriter.url, text=text, instruments=instruments)
    for path in ("/ui/policies", "/ui/playground"):
        assert "<img src=x" not in await page(proxy, path)


async def test_the_sliders_stand_beside_their_opposites(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    names = re.findall(r'<input type="range" id="value-(\w+)"', await page(proxy, "/ui/playground"))
    assert len(names) == 10
    assert list(zip(names[::2], names[1::2], strict=True)) == [
        ("universalism", "power"),
        ("benevolence", "achievement"),
        ("tradition", "hedonism"),
        ("conformity", "stimulation"),
        ("security", "self_direction"),
    ]


async def test_further_dimensions_have_sliders_and_can_be_saved(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain(), detector=ComponentConfig("encoder", spaces=("tone",)))
    names = re.findall(r'<input type="range" id="value-(\w+)"', await page(proxy, "/ui/playground"))
    assert len(names) > 10 and names[10:] == list(load_space("tone").names)
    body = {"tenant": "plain", "name": "warm", "values": {names[10]: -0.5}}
    reply = await proxy.post(body, {"Origin": proxy.url}, "/ui/api/profile")
    assert yaml.safe_load(reply.json["yaml"])["warm"]["values"] == {names[10]: -0.5}


async def test_experiments_of_policies_are_shown_without_a_store(start: Starter, base: FakeBase) -> None:
    text = plain().replace("{off: passthrough}", "{off: passthrough, on: passthrough}")
    proxy = await start(base.url, text=text + "experiments: [{name: a-a, unit: user, arms: {off: 30, on: 70}}]\n")
    shown = await page(proxy, "/ui/experiments")
    assert "experiment a-a (running)" in shown and "70 %" in shown
    assert "store: sqlite:///visa.db" in shown


async def test_there_is_nothing_else(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=plain())
    for path in ("/ui/nothing", "/ui/static/../pages.py", "/ui/static/%2e%2e/pages.py", "/ui/static/..%2fpages.py"):
        got = await proxy.get(path)
        assert got.status == 404
    assert (await proxy.get("/uix")).json["error"]["code"] == "unknown_url"
    assert (await proxy.get("/ui/logout")).status == 405


async def test_without_the_extra_the_page_says_what_to_install(
    start: Starter, base: FakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visa_proxy.errors import MissingExtra

    def missing(*_: object) -> None:
        raise MissingExtra('jinja2 is not installed: run  pip install "visa-proxy[ui]"')

    monkeypatch.setattr(routes, "Pages", missing)
    proxy = await start(base.url, text=plain())
    got = await proxy.get("/ui")
    assert (got.status, got.body) == (501, b'jinja2 is not installed: run  pip install "visa-proxy[ui]"\n')
    assert (await proxy.get("/healthz")).status == 200
