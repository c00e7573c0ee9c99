"""Responses of several tenants at one server, however its name is spelt and by whichever way it is reached."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.http import HOST, closed_port
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.tenants import OTHER, with_other
from visa_proxy.policy.config import Endpoint
from visa_proxy.server.components import Instruments

ASK: Any = {"model": "sample", "input": QUESTION}
PATH = "/v1/responses"
OFF = {"X-Visa-Profile": "off"}


@pytest.fixture(params=["two spellings", "failover"])
async def shared(
    request: pytest.FixtureRequest, start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> Running:
    """acme's base is also other's: by another name of the host, or as the one that stands in for a base that is down."""
    down = Endpoint(f"http://{HOST}:{closed_port()}/v1")
    if request.param == "two spellings":
        bases = {"default": Endpoint(base.url), "second": Endpoint(base.url.replace("127.0.0.1", "localhost"))}
        extra = "base: second"
    else:
        bases = {"default": Endpoint(base.url), "second": down}
        extra = "base: second\nfailover: default"
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(), bases=bases)
    return await with_other(proxy, extra=extra)


@pytest.mark.parametrize("profile", ["bold", "off"])
async def test_ids_of_another_tenant_are_not_there(shared: Running, base: FakeBase, profile: str) -> None:
    name = (await shared.post(ASK, {"X-Visa-Profile": profile}, PATH)).json["id"]
    assert name in base.responses.kept
    asked = len(base.seen)
    for path in (f"{PATH}/{name}", f"{PATH}/{name}/input_items"):
        for more in ({}, OFF):
            reply = await shared.get(path, {**OTHER, **more})
            assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    cancelled = await shared.post({}, OTHER, f"{PATH}/{name}/cancel")
    assert cancelled.status == 404
    for more in ({}, OFF):
        stolen = await shared.post({**ASK, "previous_response_id": name}, {**OTHER, **more}, PATH)
        assert (stolen.status, stolen.json["error"]["code"]) == (400, "previous_response_not_found")
    assert len(base.seen) == asked, "the base was asked"
    assert (await shared.get(f"{PATH}/{name}")).status == 200, "its own tenant has it no longer"


async def test_ids_that_nobody_here_has_made_are_not_there(shared: Running, base: FakeBase) -> None:
    """Made at the base by someone else: for whom, no one here can tell."""
    kept = base.responses
    name = (await shared.post(ASK, path=PATH)).json["id"]
    kept.kept["resp_of_a_stranger"] = kept.kept[name]
    asked = len(base.seen)
    for headers in ({}, OFF, OTHER, {**OTHER, **OFF}):
        assert (await shared.get(f"{PATH}/resp_of_a_stranger", headers)).status == 404
    assert len(base.seen) == asked


async def test_each_tenant_has_its_own(shared: Running) -> None:
    names = [(await shared.post(ASK, headers, PATH)).json["id"] for headers in ({}, OTHER)]
    assert len(set(names)) == 2
    assert (await shared.get(f"{PATH}/{names[0]}")).status == 200
    assert (await shared.get(f"{PATH}/{names[1]}", OTHER)).status == 200
    assert (await shared.get(f"{PATH}/{names[1]}")).status == 404
    assert (await shared.get(f"{PATH}/{names[0]}", OTHER)).status == 404
