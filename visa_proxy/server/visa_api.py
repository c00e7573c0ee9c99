"""POST /v1/visa/{detect,translate,rewrite}: the components, each alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from visa_proxy.errors import NotReady, PermissionDenied, RequestError
from visa_proxy.policy.resolve import Tenant, choose_profile
from visa_proxy.policy.schema import Level
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.surfaces.base import json_object
from visa_proxy.shield.answer import rewrite_whole
from visa_proxy.shield.pipeline import Brief, Shield
from visa_proxy.shield.windows import MAX_WHOLE
from visa_proxy.values import Space, Target, ValueVector

Text = Annotated[str, StringConstraints(max_length=MAX_WHOLE)]
Instruction = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"\S")]


class Body(BaseModel):
    """What is sent to /v1/visa; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _About(Body):
    query: Text = ""
    """What the answer is an answer to."""


class DetectBody(_About):
    """What to measure."""

    answer: Text
    explain: bool = False
    """Whether the answer is to say where the values come from, as far as the detector knows."""


class TranslateBody(_About):
    """What to translate."""

    instruction: Instruction
    answer: Text = ""


class RewriteBody(_About):
    """What to rewrite, and towards what: a profile of the tenant, or values and/or an instruction of the caller's own."""

    answer: Text
    profile: str | None = None
    mode: Literal["offset", "target"] = "offset"
    values: dict[str, Level] | None = None
    instruction: Instruction | None = None


Model = TypeVar("Model", bound=Body)


async def detect(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """{query?, answer, explain?} → {space, values, confidence, sentences?, explanation?}; the last two where asked for and known."""
    body = await read_body(call, gateway, tenant, DetectBody)
    detector = _shield(gateway).detector
    reading = await detector.detect(body.query, body.answer)
    data: dict[str, Any] = {
        "object": "visa.detection",
        "space": detector.space.name,
        "values": reading.values.to_dict(),
        "confidence": {name: round(sure, 4) for name, sure in reading.confidence.items()},
    }
    if body.explain and reading.sentences:
        data["sentences"] = [{"text": each.sentence, "values": each.values.to_dict()} for each in reading.sentences]
    if body.explain and reading.explanation:
        data["explanation"] = reading.explanation
    await call.respond_json(data)


async def translate(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """{query?, answer?, instruction} → {space, offset, confidence, language?, note?}; the offset is bounded by the policy."""
    body = await read_body(call, gateway, tenant, TranslateBody)
    translator = _shield(gateway).translator
    result = await translator.translate(body.query, body.answer, body.instruction)
    await call.respond_json(
        {
            "object": "visa.translation",
            "space": translator.space.name,
            "offset": result.offset.bounded(tenant.bounds).to_dict(),
            "confidence": round(result.confidence, 4),
            **({"language": result.language} if result.language else {}),
            **({"note": result.note} if result.note else {}),
        }
    )


async def rewrite(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """{query?, answer, profile? | mode?, values?, instruction?} → {text, visa}."""
    body = await read_body(call, gateway, tenant, RewriteBody)
    shield = _shield(gateway)
    target, instructions, name = _wanted(body, tenant, shield.detector.space)
    brief = Brief(
        query=body.query,
        target=target,
        settings=tenant.shield,
        instructions=instructions,
        bounds=tenant.bounds,
        model=tenant.rewriter_model,
    )
    adaptation = await rewrite_whole(shield, brief, body.answer)
    visa = {"tenant": tenant.name, "profile": name, **adaptation.trace.to_dict()}
    call.visa[b"x-visa-status"] = adaptation.trace.status
    await call.respond_json({"object": "visa.rewrite", "text": adaptation.text, "visa": visa})


def _wanted(body: RewriteBody, tenant: Tenant, space: Space) -> tuple[Target | None, tuple[str, ...], str | None]:
    if body.values is None and body.instruction is None:
        try:
            profile, _ = choose_profile(tenant, body.profile)
        except RequestError as error:
            error.param = "profile"
            raise
        if profile.passthrough:
            raise RequestError(f"the profile {profile.name!r} passes answers through unchanged", param="profile")
        return profile.target, () if profile.instruction is None else (profile.instruction,), profile.name
    if body.profile is not None:
        raise RequestError("give either a profile, or values and an instruction", param="profile")
    if not tenant.request_instruction:
        raise PermissionDenied(
            "This tenant's policy does not take values or instructions per request",
            param="values" if body.values is not None else "instruction",
            code="instruction_not_allowed",
        )
    if body.mode == "target" and (body.values is None or body.instruction is not None):
        raise RequestError("mode target needs values, and takes no instruction", param="mode")
    unknown = sorted(set(body.values or {}) - set(space.names))
    if unknown:
        raise RequestError(f"unknown value {unknown[0]!r}; allowed: {', '.join(space.names)}", param=f"values.{unknown[0]}")
    target = None if body.values is None else Target(body.mode, ValueVector.of(space.covering(body.values), body.values))
    return target, () if body.instruction is None else (body.instruction,), None


async def read_body(call: Call, gateway: Gateway, tenant: Tenant, model: type[Model]) -> Model:
    """The request's body as a `model`. Raises RequestError with its first problem."""
    data = json_object(await call.body(gateway.max_body(tenant)))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _refusal(error, model) from error


def _refusal(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """The first problem, in OpenAI's terms."""
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"unknown key {name!r}; allowed: {', '.join(model.model_fields)}"
    elif first["type"] == "missing":
        message = f"you must provide {name!r}"
    else:
        message = f"{name}: {first['msg']}"
    return RequestError(message, param=name)


def _shield(gateway: Gateway) -> Shield:
    shield = gateway.components.shield
    if shield is None:
        raise NotReady(f"the components are not ready: {gateway.components.state}")
    return shield
