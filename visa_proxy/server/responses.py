"""The Responses API: rewritten once, and the same when it is asked for again or answered to."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, quote

import orjson

from visa_proxy.errors import NotFound, RequestError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.generate import forward, generate, plan_for
from visa_proxy.server.history import Kept, Turn, written
from visa_proxy.server.plan import Plan
from visa_proxy.server.references import input_items, spelled_out
from visa_proxy.server.surfaces.base import Json, Request, encoded, json_object, typed
from visa_proxy.server.surfaces.responses import PENDING, ResponsesSurface

RESPONSES: Final = ResponsesSurface()
_BY_ID: Final = re.compile(r"/v1/responses/(?P<id>[^/]{1,512})(?P<rest>/cancel|/input_items)?/?")
_FIRST_ID: Final = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\]{1,512})"')
"""Of an answer that is too long to have been read whole: the id is its first field, or it is not known."""
_HEAD_BYTES: Final = 64 * 1024
"""Of a relayed answer, in which its id must stand."""


async def responses(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/responses."""
    request = Request.parse(RESPONSES, await call.body(gateway.max_body(tenant)))
    plan = plan_for(call, tenant, request)
    if request.data.get("conversation") is not None and not (plan.profile.passthrough and gateway.alone):
        raise RequestError(
            "'conversation' is kept by the base model, with its own text and for all tenants; use 'previous_response_id'",
            param="conversation",
            code="unsupported_parameter",
        )
    await generate(call, gateway, _remembering(gateway, _continued(gateway, plan)))


async def beside(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/responses/compact and /v1/responses/input_tokens: relayed, and they too speak of what this tenant saw."""
    data = json_object(await call.body(gateway.max_body(tenant)))
    RESPONSES.check(data)
    gateway.reserved.check(tenant, typed(data, "model", str, "a string"))
    passthrough = tenant.default_profile.passthrough
    spelled = spelled_out(gateway, tenant, data, rewritten=not passthrough)
    call.visa[b"x-visa-status"] = "passthrough" if passthrough else "skipped:surface"
    await gateway.pass_on(call, tenant, call.target, None if spelled is data else encoded(spelled))


async def by_id(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """GET and DELETE /v1/responses/{id}, POST …/cancel, GET …/input_items."""
    match = _BY_ID.fullmatch(call.path)
    posts = match is not None and match["rest"] == "/cancel"
    if match is None or match["id"] in (".", "..") or (call.method == "POST") != posts:
        raise NotFound(f"Unknown request URL: {call.method} {call.path[:200]}", code="unknown_url")
    name, rest = match["id"], match["rest"] or ""
    turn = gateway.history.get(tenant.name, name)
    if turn is None and not gateway.alone:
        raise NotFound(f"Response with id {name[:80]!r} not found.", param="id", code="not_found")
    path = f"/responses/{quote(name, safe='')}{rest}" + call.target_query
    if call.method == "DELETE" or rest == "/input_items":

        def forget(status: int) -> None:
            # Before the client hears of it: from then on no worker shows it any more.
            if call.method == "DELETE" and not rest and status in (200, 204, 404):
                gateway.history.forget(tenant.name, name)

        await _relayed(call, gateway, tenant, path, begun=forget)
    elif turn is not None and turn.kept is None and turn.plan is None:
        await _relayed(call, gateway, tenant, path)
    else:
        shown = turn or Turn(plan=plan_for(call, tenant, _asked_again()))
        await _shown(call, gateway, tenant, shown, path, known=turn is not None)


async def _relayed(call: Call, gateway: Gateway, tenant: Tenant, path: str, begun: Callable[[int], None] | None = None) -> None:
    """What the base says of a response that is not rewritten. `begun`: see `relay`."""
    call.visa[b"x-visa-status"] = "passthrough"
    await gateway.pass_on(call, tenant, path, begun=begun)


async def _shown(call: Call, gateway: Gateway, tenant: Tenant, turn: Turn, path: str, *, known: bool) -> None:
    """A response that is rewritten: as it was shown before, or now that the base has finished it. `known`: see `_remembering`."""
    if turn.plan is not None and turn.plan.profile.passthrough:
        await _relayed(call, gateway, tenant, path)
        return
    if parse_qs(call.query.decode("latin-1")).get("stream", ["false"])[0].lower() in ("true", "1"):
        message = "a stored response that is rewritten cannot be streamed again"
        raise RequestError(message, param="stream", code="unsupported_parameter")
    if turn.kept is not None:
        call.visa[b"x-visa-profile"] = turn.kept.profile
        call.visa[b"x-visa-status"] = turn.kept.status
        await call.respond(200, turn.kept.body)
        return
    assert turn.plan is not None, "a turn without a plan was finished or relayed"
    request = dataclasses.replace(turn.plan.request, stream=False)
    plan = dataclasses.replace(turn.plan, request=request, pinned=True)
    await forward(call, gateway, _remembering(gateway, plan, known=known), call.method, path, None)


def _asked_again() -> Request:
    """For a response this process knows nothing of: the question is not known either."""
    return Request(surface=RESPONSES, data={}, raw=b"", model=None, suffix=None, stream=False, user=None)


def _continued(gateway: Gateway, plan: Plan) -> Plan:
    """The plan with what the request refers to spelled out. Raises RequestError."""
    before = plan.request.data.get("previous_response_id")
    data = spelled_out(gateway, plan.tenant, plan.request.data, rewritten=not plan.profile.passthrough)
    if data is plan.request.data:
        return dataclasses.replace(plan, pinned=before is not None)
    request = dataclasses.replace(plan.request, data=data, raw=encoded(data))
    return dataclasses.replace(plan, request=request, amend=functools.partial(_say_before, before))


def _say_before(before: str | None, body: Json) -> None:
    """Name the response that the client went on from. Of the module and not of a call: a plan may go to another worker."""
    response = body.get("response", body)
    if isinstance(response, dict) and response.get("object") == "response":
        response["previous_response_id"] = before


def _remembering(gateway: Gateway, plan: Plan, *, known: bool = False) -> Plan:
    """The plan with its response kept, unless the client does not want that. `known`: it is there already, for now."""
    tenant = plan.tenant.name
    if plan.request.data.get("store") is False:
        return plan
    first = plan.amend
    seen = bytearray()

    def amend(body: Json) -> None:
        first(body)
        # Whoever leaves a stream that the base goes on with may ask for the answer later.
        if body.get("type") == "response.created":
            remember(body)

    def remember(body: Json) -> None:
        nonlocal known
        response = body.get("response", body)
        name = response.get("id") if isinstance(response, dict) else None
        if not isinstance(name, str) or (known and gateway.history.get(tenant, name) is None):
            return  # the client has deleted it meanwhile
        known = True
        gateway.history.put(tenant, name, _turn(plan, response))

    def relayed(piece: bytes) -> bool:
        seen.extend(piece)
        name = _id_of(bytes(seen))
        if name is not None:
            gateway.history.put(tenant, name, Turn())
        return name is not None or len(seen) > _HEAD_BYTES

    return dataclasses.replace(plan, amend=amend, remember=remember, relayed=relayed)


def _turn(plan: Plan, response: Json) -> Turn:
    """What is kept of a response as it leaves."""
    if response.get("status") in PENDING:
        return Turn(plan=plan)
    data = plan.request.data
    items, places = written([*input_items(data.get("input")), *(response.get("output") or ())])
    before, status = data.get("previous_response_id"), response["visa"]["status"]
    return Turn(Kept(orjson.dumps(response), items, before, status, plan.profile.name, places))


def _id_of(head: bytes) -> str | None:
    """The id of a response from the first bytes of its answer: the whole JSON, or the first event of a stream."""
    text = head.lstrip()
    if not text.startswith(b"{"):
        lines = (line[5:] for line in head.split(b"\n")[:-1] if line.startswith(b"data:"))
        text = next(lines, b"")
    try:
        data: Any = orjson.loads(text)
        name = data.get("response", data).get("id")
    except (orjson.JSONDecodeError, AttributeError):
        found = _FIRST_ID.match(text)
        return found[1].decode("utf-8", "replace") if found else None
    return name if isinstance(name, str) else None
