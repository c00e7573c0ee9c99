"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import orjson

from visa_proxy.errors import PermissionDenied, RequestError, RewriteRefused, UpstreamError
from visa_proxy.llm import sse
from visa_proxy.llm.http import MAX_ANSWER_BYTES, Endpoint, Exchange
from visa_proxy.policy.resolve import Profile, Tenant, choose_profile
from visa_proxy.server.call import JSON, Call, HeaderList
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.relay import relay, request_headers, response_headers
from visa_proxy.server.wire import ChatRequest, Stream, body_of, choices_of
from visa_proxy.shield.pipeline import Adaptation
from visa_proxy.shield.trace import Trace

KEEP_ALIVE_S: Final = 5.0
_OURS: Final = frozenset(("content-length", "content-encoding", "content-type", "etag", "digest", "content-digest"))


@dataclass(frozen=True)
class Plan:
    """What is to be done with the answer to one request."""

    tenant: Tenant
    profile: Profile
    instructions: tuple[str, ...]
    query: str


async def chat(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """Forward, adapt, answer. Raises VisaError; the caller renders it."""
    raw = await call.body(gateway.max_body(tenant))
    request = ChatRequest.parse(raw)
    profile, assignment = choose_profile(
        tenant,
        call.header(b"x-visa-profile"),
        request.suffix,
        user=request.user,
        headers=_texts(call) if tenant.experiments else None,
    )
    call.visa[b"x-visa-profile"] = profile.name
    if assignment is not None:
        call.visa[b"x-visa-experiment"] = str(assignment)
    instructions = _instructions(call, tenant, profile)
    endpoint = gateway.base(tenant)
    body = request.forward(raw, default_model=gateway.default_model(tenant))
    untouched = "passthrough" if profile.passthrough else request.skip
    if untouched is not None:
        call.visa[b"x-visa-status"] = untouched
        gateway.metrics.untouched(tenant.name, profile.name, untouched)
        await relay(call, endpoint, _path(call), body)
        return
    plan = Plan(tenant, profile, instructions, request.query)
    async with endpoint.request("POST", _path(call), headers=request_headers(call, plain=True), body=body) as answer:
        if answer.status >= 400:
            raise endpoint.error(answer.status, await answer.read(), answer.headers)
        if request.stream:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise UpstreamError("the base model did not stream its answer", code="upstream_garbled")
            await _full_stream(call, gateway, plan, answer)
        else:
            await _whole(call, gateway, plan, endpoint, answer)


async def _whole(call: Call, gateway: Gateway, plan: Plan, endpoint: Endpoint, answer: Exchange) -> None:
    data = body_of(endpoint.parse(await answer.read()))
    choices = choices_of(data)
    results = await _adapt_all(gateway, plan, [(choice.text, choice.skip) for choice in choices])
    for choice, result in zip(choices, results, strict=True):
        if result.trace.status == "adapted":
            choice.replace(result.text)
    traces = {choice.index: result.trace for choice, result in zip(choices, results, strict=True)}
    visa = gateway.report(call, plan.tenant, plan.profile, traces)
    call.visa[b"x-visa-status"] = visa["status"]
    data["visa"] = visa
    await call.respond(answer.status, orjson.dumps(data), _headers(answer))


async def _full_stream(call: Call, gateway: Gateway, plan: Plan, answer: Exchange) -> None:
    """`streaming: full`: collect the base's stream, adapt, then send it on; comments keep the connection alive meanwhile."""
    call.visa[b"x-visa-stream-mode"] = "full"
    await call.start(answer.status, [(b"content-type", sse.MEDIA_TYPE), (b"cache-control", b"no-cache"), *_headers(answer)])
    async with _kept_alive(call):
        stream = await Stream.collect(sse.events(answer.chunks(), max_bytes=MAX_ANSWER_BYTES))
        choices = stream.choices
        results = await _adapt_all(gateway, plan, [(choice.text, choice.skip) for choice in choices.values()])
    adapted = {index: result.text for index, result in zip(choices, results, strict=True) if result.trace.status == "adapted"}
    traces = {index: result.trace for index, result in zip(choices, results, strict=True)}
    visa = gateway.report(call, plan.tenant, plan.profile, traces)
    for chunk in stream.rewritten(adapted, visa):
        await call.write(chunk)
    await call.write(sse.DONE, more=False)


async def _adapt_all(gateway: Gateway, plan: Plan, texts: list[tuple[str, str | None]]) -> list[Adaptation]:
    """Every choice, at once. Raises RewriteRefused only after all have ended: none is left running behind an answered request."""
    results = await asyncio.gather(*(_adapt(gateway, plan, text, skip) for text, skip in texts), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def _adapt(gateway: Gateway, plan: Plan, text: str, skip: str | None) -> Adaptation:
    if skip is not None:
        return Adaptation(text, Trace(status=skip))
    shield = gateway.components.shield
    if shield is None:
        if plan.tenant.shield.on_failure == "error":
            raise RewriteRefused("no verified rewrite: not-ready")
        return Adaptation(text, Trace(status="fallback:not-ready"))
    return await shield.adapt(
        query=plan.query,
        answer=text,
        target=plan.profile.target,
        instructions=plan.instructions,
        settings=plan.tenant.shield,
        model=plan.tenant.rewriter_model,
    )


@contextlib.asynccontextmanager
async def _kept_alive(call: Call) -> AsyncIterator[None]:
    """Sends an SSE comment every few seconds while the body of the context runs."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await call.write(sse.KEEP_ALIVE)

    task = asyncio.get_running_loop().create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


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


def _texts(call: Call) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in call.headers.items()}


def _path(call: Call) -> str:
    return "/chat/completions" + (f"?{call.query.decode('latin-1')}" if call.query else "")


def _headers(answer: Exchange) -> HeaderList:
    own = [] if answer.headers.get("content-type", "").startswith("text/event-stream") else [JSON]
    return [*own, *response_headers(answer.headers, without=_OURS)]
