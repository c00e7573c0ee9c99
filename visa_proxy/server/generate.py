"""The three surfaces that generate text: forward the request, adapt the answer, say what happened."""

from __future__ import annotations

from typing import Final

import orjson

from visa_proxy.errors import NotReady, PermissionDenied, RequestError
from visa_proxy.llm.base import Exchange
from visa_proxy.policy.resolve import Profile, Tenant, choose_profile
from visa_proxy.server.call import JSON, Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.plan import Plan
from visa_proxy.server.relay import RECODED, relay, response_headers, tidied
from visa_proxy.server.streaming import stream
from visa_proxy.server.surfaces.base import Request, Slot, Surface, garbled
from visa_proxy.server.surfaces.chat import ChatSurface
from visa_proxy.server.surfaces.completions import CompletionsSurface
from visa_proxy.server.units import units_of
from visa_proxy.server.upstream import ask
from visa_proxy.shield.answer import complete, gathered
from visa_proxy.shield.pipeline import Adaptation, Shield
from visa_proxy.shield.trace import Trace

CHAT: Final = ChatSurface()
COMPLETIONS: Final = CompletionsSurface()


async def chat(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/chat/completions."""
    await _answer(call, gateway, tenant, CHAT)


async def completions(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """POST /v1/completions."""
    await _answer(call, gateway, tenant, COMPLETIONS)


async def _answer(call: Call, gateway: Gateway, tenant: Tenant, surface: Surface) -> None:
    request = Request.parse(surface, await call.body(gateway.max_body(tenant)))
    await generate(call, gateway, plan_for(call, tenant, request))


def plan_for(call: Call, tenant: Tenant, request: Request) -> Plan:
    """The profile, its instructions and the caller's. Raises NotFound, PermissionDenied or RequestError naming the header."""
    profile, assignment = choose_profile(
        tenant,
        call.header(b"x-visa-profile"),
        request.suffix,
        units=units_of(call, request, tenant.experiments),
    )
    call.visa[b"x-visa-profile"] = profile.name
    if assignment is not None:
        call.visa[b"x-visa-experiment"] = str(assignment)
    return Plan(tenant, profile, _instructions(call, tenant, profile), request, assignment)


def untouched(plan: Plan) -> str | None:
    """Why the answers to this request are relayed as they come, or None."""
    if plan.profile.passthrough:
        return "passthrough"
    if plan.request.json_asked and not plan.tenant.shield.json_fields:
        return "skipped:json"
    return plan.request.skip


async def generate(call: Call, gateway: Gateway, plan: Plan) -> None:
    """Forward, adapt, answer. Raises VisaError; the caller renders it."""
    gateway.reserved.check(plan.tenant, plan.request.model)
    body = plan.request.forward(model=gateway.default_model(plan.tenant))
    if plan.assignment is not None:
        gateway.metrics.exposure(plan.tenant.name, plan.assignment)
    await forward(call, gateway, plan, "POST", plan.request.surface.path + call.target_query, body)


async def forward(call: Call, gateway: Gateway, plan: Plan, method: str, path: str, body: bytes | None) -> None:
    """One request to the base, and its answer: rewritten, or relayed with the reason. Raises VisaError."""
    shield_or_why = shield_for(gateway, plan)
    if isinstance(shield_or_why, str):
        gateway.relayed(call, plan, shield_or_why)
        asking = ask(call, gateway, plan, method, path, body, plain=plan.relayed is not None)
        await relay(call, asking, idle_s=plan.tenant.limits.idle_s, head=plan.relayed, tidy=True)
        return
    gateway.begun(call, plan)
    async with ask(call, gateway, plan, method, path, body, plain=True) as answer:
        await _adapt(call, gateway, shield_or_why, plan, answer)


def shield_for(gateway: Gateway, plan: Plan) -> Shield | str:
    """What rewrites the answers to this request, or why they are relayed as they come. Raises NotReady."""
    why = untouched(plan)
    if why is not None:
        return why
    shield = gateway.components.shield
    if shield is not None:
        return shield
    if plan.tenant.shield.on_failure == "error":
        raise NotReady(f"nothing can be rewritten yet: components are {gateway.components.state}")
    return "fallback:not-ready"


async def _adapt(call: Call, gateway: Gateway, shield: Shield, plan: Plan, answer: Exchange) -> None:
    if answer.status >= 400:
        if not await tidied(call, answer):
            raise answer.endpoint.error(answer.status, await answer.read(), answer.headers)
    elif plan.request.stream:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise garbled("answer is no stream")
        await stream(call, gateway, shield, plan, answer, response_headers(answer.headers, without=RECODED | {"cache-control"}))
    else:
        await _whole(call, gateway, shield, plan, answer)


async def _whole(call: Call, gateway: Gateway, shield: Shield, plan: Plan, answer: Exchange) -> None:
    body = answer.endpoint.parse(await answer.read())
    if not isinstance(body, dict):
        raise garbled("answer is no JSON object")
    plan.amend(body)
    slots = plan.request.surface.slots(body)
    results = await gathered(_adapt_slot(shield, plan, slot) for slot in slots)
    for slot, result in zip(slots, results, strict=True):
        if result.trace.status == "adapted":
            slot.replace(result.text)
    said = list(zip(slots, results, strict=True))
    texts = {slot.key: (slot.text, result.text) for slot, result in said}
    visa = gateway.report(call, plan, {slot.key: result.trace for slot, result in said}, texts)
    call.visa[b"x-visa-status"] = visa["status"]
    body["visa"] = visa
    try:
        content = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise garbled("answer is nested too deeply") from error
    plan.remember(body)
    await call.respond(answer.status, content, [JSON, *response_headers(answer.headers, without=RECODED)])


async def _adapt_slot(shield: Shield, plan: Plan, slot: Slot) -> Adaptation:
    if slot.skip is not None:
        return Adaptation(slot.text, Trace(status=slot.skip))
    return await complete(plan.open(shield, slot.key, windows=False), slot.text)


def _instructions(call: Call, tenant: Tenant, profile: Profile) -> tuple[str, ...]:
    """The profile's own instruction and the caller's. Raises PermissionDenied or RequestError naming the header."""
    given = call.header(b"x-visa-instruction", limit=2000)
    if given is None:
        return () if profile.instruction is None else (profile.instruction,)
    if not tenant.request_instruction:
        raise PermissionDenied(
            "This tenant's policy does not take instructions per request",
            param="X-Visa-Instruction",
            code="instruction_not_allowed",
        )
    if profile.passthrough:
        raise RequestError(
            f"the profile {profile.name!r} passes answers through unchanged: an instruction cannot apply",
            param="X-Visa-Instruction",
            code="instruction_not_applicable",
        )
    if profile.target is not None and profile.target.mode == "target":
        raise RequestError(
            f"the profile {profile.name!r} sets an absolute target: an instruction cannot shift it",
            param="X-Visa-Instruction",
            code="instruction_not_applicable",
        )
    return (given,) if profile.instruction is None else (profile.instruction, given)
