"""POST /beta/litellm_basic_guardrail_api: LiteLLM's generic guardrail API, which hands over answers and takes them back rewritten.

LiteLLM does not say which call about a stream is the last one: whatever is returned must be fit to be the end (see Draft).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.errors import NotReady, RequestError, RewriteRefused
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call, new_request_id
from visa_proxy.server.draft import Said
from visa_proxy.server.exposures import Exposed, Texts
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.generate import shield_for
from visa_proxy.server.hosted import hosted_plan
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json, json_object, last_user_text, typed

PATH: Final = "/beta/litellm_basic_guardrail_api"
MAX_TEXTS: Final = 128
"""Of one answer; OpenAI's own limit of choices."""
MAX_ID: Final = 256
"""Characters of a call's id."""
_NONE: Final = {"action": "NONE"}


@dataclass(frozen=True)
class Asked:
    """What LiteLLM sends; fields that nothing here depends on are left out."""

    about_request: bool
    """About a question that has no answer yet."""
    texts: list[str]
    """Of a response: one for each choice that has text, whole or so far."""
    messages: list[Any]
    call: str | None
    """LiteLLM's id of the call."""
    headers: Mapping[str, str]
    """The client's, as far as LiteLLM tells."""
    user: str | None
    profile: str | None

    @classmethod
    def parse(cls, raw: bytes) -> Asked:
        """Raises RequestError naming the field that is missing or of a wrong type."""
        data = json_object(raw)
        kind = data.get("input_type")
        if kind not in ("request", "response"):
            raise RequestError("'input_type' must be request or response", param="input_type")
        texts = typed(data, "texts", list, "an array of strings") or []
        headers = typed(data, "request_headers", dict, "an object of strings") or {}
        for name, values in (("texts", texts), ("request_headers", headers.values())):
            if not all(isinstance(value, str) for value in values):
                raise RequestError(f"'{name}' must hold strings only", param=name, code="invalid_type")
        if len(texts) > MAX_TEXTS:
            raise RequestError(f"'texts' has {len(texts)} texts, at most {MAX_TEXTS} are allowed", param="texts")
        known = typed(data, "litellm_call_id", str, "a string") or None
        if known is not None and len(known) > MAX_ID:
            message = f"'litellm_call_id' has {len(known)} characters, at most {MAX_ID} are allowed"
            raise RequestError(message, param="litellm_call_id")
        who = typed(data, "request_data", dict, "an object") or {}
        users = (who.get("user_api_key_end_user_id"), who.get("user_api_key_user_id"))
        given = typed(data, "additional_provider_specific_params", dict, "an object") or {}
        return cls(
            about_request=kind == "request",
            texts=texts,
            messages=typed(data, "structured_messages", list, "an array") or [],
            call=known,
            headers=headers,
            user=next((user for user in users if isinstance(user, str) and user), None),
            profile=typed(given, "profile", str, "a string"),
        )


async def guardrail(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """Questions pass, answers are rewritten; BLOCKED, where LiteLLM's client gets an error instead, has its reason with it."""
    asked = Asked.parse(await call.body(gateway.max_body(tenant)))
    try:
        reply = await _reply(call, gateway, tenant, asked)
    except (RequestError, RewriteRefused, NotReady) as error:
        # LiteLLM says nothing of an error but its status; the reason of a refusal it passes on.
        reply = {"action": "BLOCKED", "blocked_reason": error.message}
    await call.respond_json(reply)


async def _reply(call: Call, gateway: Gateway, tenant: Tenant, asked: Asked) -> Json:
    plan = _plan(call, gateway, tenant, asked)
    if asked.about_request:
        if asked.call is not None:
            gateway.drafts.ask(tenant.name, asked.call, last_user_text(asked.messages))
        return _NONE
    shield = shield_for(gateway, plan)
    if isinstance(shield, str) or not any(text.strip() for text in asked.texts):
        call.visa[b"x-visa-status"] = shield if isinstance(shield, str) else "skipped:empty"
        return _NONE
    said = await gateway.drafts.say(plan, shield, asked.call or new_request_id(), asked.texts)
    if gateway.store is not None and asked.call is not None:
        # Told again and again while the answer grows: the last row of the call replaces those before it.
        call.exposed = Exposed(plan, request_id=asked.call, surface="guardrail")
        texts: Texts = {(i,): (text, each.text) for i, (text, each) in enumerate(zip(asked.texts, said, strict=True))}
        status = next((each.trace.status for each in said if each.trace.status != "adapted"), "adapted")
        call.exposed.report(status, [each.trace for each in said], texts if tenant.store.text else {})
    return _said(call, asked, said)


def _plan(call: Call, gateway: Gateway, tenant: Tenant, asked: Asked) -> Plan:
    headers = dict(asked.headers)
    if asked.profile is not None and asked.profile != tenant.default_profile.name:
        headers.setdefault("x-visa-profile", asked.profile)
    # What the answer is an answer to is told with the question only; without an id nobody knows which question that was.
    query = "" if asked.call is None else gateway.drafts.query(tenant.name, asked.call)
    messages = asked.messages or [{"role": "user", "content": query}]
    plan, visa = hosted_plan(tenant, {"messages": messages, "user": asked.user}, headers)
    call.visa |= visa
    return plan


def _said(call: Call, asked: Asked, said: list[Said]) -> Json:
    statuses = [each.trace.status for each in said]
    call.visa[b"x-visa-status"] = next((status for status in statuses if status != "adapted"), "adapted")
    texts = [each.text for each in said]
    changed = {"action": "GUARDRAIL_INTERVENED", "texts": texts} if texts != asked.texts else _NONE
    return {**changed, "stream_holdback_chars": [each.held for each in said], "visa": {"statuses": statuses}}
