"""The Responses API: rewritten once, and the same when it is asked for again or answered to."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from visa_proxy.errors import NotFound, RequestError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.generate import forward, generate, plan_for
from visa_proxy.server.history import Turn
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json, Request, json_object
from visa_proxy.server.surfaces.responses import PENDING, ResponsesSurface

RESPONSES: Final = ResponsesSurface()
_BY_ID: Final = re.compile(r"/v1/responses/(?P<id>[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,255})(?P<rest>/cancel|/input_items)?/?")
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,256})"')
_OVERHEAD: Final = 1024
"""Bytes that a turn takes beside its texts."""


async def responses(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/responses."""
    request = Request.parse(RESPONSES, await call.body(gateway.max_body(tenant)))
    plan = plan_for(call, tenant, request)
    if request.data.get("conversation") is not None and not plan.profile.passthrough:
        raise RequestError(
            "'conversation' keeps the base model's own text on its side; use 'previous_response_id' with a profile that rewrites",
            param="conversation",
            code="unsupported_parameter",
        )
    await generate(call, gateway, _remembering(gateway, _continued(gateway, plan)))


async def beside(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/responses/compact and /v1/responses/input_tokens: relayed, and they too speak of what this tenant saw."""
    body = await call.body(gateway.max_body(tenant))
    data = json_object(body)
    RESPONSES.check(data)
    spelled = _spelled_out(gateway, tenant, data)
    call.visa[b"x-visa-status"] = "passthrough" if tenant.default_profile.passthrough else "skipped:surface"
    path = call.raw_path.removeprefix("/v1") + (f"?{call.query.decode('latin-1')}" if call.query else "")
    await gateway.pass_on(call, tenant, path, None if spelled is data else orjson.dumps(spelled))


async def by_id(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """GET and DELETE /v1/responses/{id}, POST …/cancel, GET …/input_items."""
    match = _BY_ID.fullmatch(call.path)
    if match is None:
        raise NotFound(f"Unknown request URL: {call.method} {call.path[:200]}", code="unknown_url")
    name, rest = match["id"], match["rest"] or ""
    turn = gateway.history.get(tenant.name, name)
    if turn is None and not gateway.alone(tenant):
        raise NotFound(f"Response with id {name[:80]!r} not found.", param="id", code="not_found")
    path = f"/responses/{name}{rest}" + (f"?{call.query.decode('latin-1')}" if call.query else "")
    plan = turn.plan if turn is not None else plan_for(call, tenant, _asked_again())
    if call.method == "DELETE":
        gateway.history.forget(tenant.name, name)
    if call.method == "DELETE" or rest == "/input_items" or plan is None or plan.profile.passthrough:
        call.visa[b"x-visa-status"] = "passthrough"
        await gateway.pass_on(call, tenant, path)
        return
    if parse_qs(call.query.decode("latin-1")).get("stream", ["false"])[0].lower() in ("true", "1"):
        raise RequestError(
            "a stored response that is rewritten cannot be streamed again", param="stream", code="unsupported_parameter"
        )
    if turn is not None and turn.body is not None and not rest:
        call.visa[b"x-visa-profile"] = plan.profile.name
        call.visa[b"x-visa-status"] = orjson.loads(turn.body)["visa"]["status"]
        await call.respond(200, turn.body)
        return
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, stream=False))
    await forward(call, gateway, _remembering(gateway, plan), call.method, path, None)


def _asked_again() -> Request:
    """For a response this process knows nothing of: the question is not known either."""
    return Request(surface=RESPONSES, data={}, raw=b"", model=None, suffix=None, stream=False, user=None)


def _continued(gateway: Gateway, plan: Plan) -> Plan:
    """The plan with what the request refers to spelled out. Raises RequestError."""
    before = plan.request.data.get("previous_response_id")
    data = _spelled_out(gateway, plan.tenant, plan.request.data)
    if data is plan.request.data:
        return plan
    request = dataclasses.replace(plan.request, data=data, raw=orjson.dumps(data))

    def amend(body: Json) -> None:
        response = body.get("response", body)
        if isinstance(response, dict) and response.get("object") == "response":
            response["previous_response_id"] = before

    return dataclasses.replace(plan, request=request, amend=amend)


def _spelled_out(gateway: Gateway, tenant: Tenant, data: Json) -> Json:
    """A request with the responses and items that it refers to in their place, where the base's record is not what the client saw.

    Raises RequestError for those that are not this tenant's.
    """
    known: list[Json] | None = None
    before = data.get("previous_response_id")
    if before is not None:
        turn = gateway.history.get(tenant.name, before)
        if turn is None and not gateway.alone(tenant):
            message = f"Previous response with id {before[:80]!r} not found."
            raise RequestError(message, param="previous_response_id", code="previous_response_not_found")
        known = None if turn is None or turn.items is None else list(turn.items)
    given = data.get("input")
    listed = isinstance(given, list) and any(isinstance(item, dict) and item.get("type") == "item_reference" for item in given)
    if listed:
        given = [_resolved(gateway, tenant, item, i) for i, item in enumerate(given or [])]
    if known is None:
        return {**data, "input": given} if listed else data
    rest = {name: value for name, value in data.items() if name != "previous_response_id"}
    return {**rest, "input": [*known, *_items(given)]}


def _resolved(gateway: Gateway, tenant: Tenant, item: Any, place: int) -> Any:
    """The item that an item_reference means. Raises RequestError."""
    if not isinstance(item, dict) or item.get("type") != "item_reference":
        return item
    found = gateway.history.item(tenant.name, str(item.get("id")))
    if found is None and not gateway.alone(tenant):
        message = f"Item with id {str(item.get('id'))[:80]!r} not found."
        raise RequestError(message, param=f"input[{place}].id", code="item_not_found")
    return found or item


def _remembering(gateway: Gateway, plan: Plan) -> Plan:
    """The plan with its response kept, unless the client does not want that."""
    data, tenant = plan.request.data, plan.tenant.name
    if data.get("store") is False:
        return plan

    def remember(body: Json) -> None:
        response = body.get("response", body)
        name = response.get("id")
        if not isinstance(name, str):
            return
        if response.get("status") in PENDING:
            gateway.history.put(tenant, name, Turn(plan=plan, size=_OVERHEAD + len(plan.request.raw)))
            return
        content = orjson.dumps(response)
        items = (*_items(data.get("input")), *response.get("output", ()))
        size = _OVERHEAD + len(content) + len(plan.request.raw)
        gateway.history.put(tenant, name, Turn(content, items, plan, size))

    def relayed(head: bytes) -> None:
        if found := _ID.search(head):
            gateway.history.put(tenant, found[1].decode("utf-8", "replace"), Turn(size=_OVERHEAD))

    return dataclasses.replace(plan, remember=remember, relayed=relayed)


def _items(given: Any) -> list[Json]:
    """The input of a request as items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return list(given or [])
