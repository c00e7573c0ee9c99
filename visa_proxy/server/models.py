"""GET /v1/models: the base's models, and each again as `model@profile`."""

from __future__ import annotations

from typing import Any

import orjson

from visa_proxy.errors import UpstreamError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway


async def models(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """Lists what a caller may put into `model`; the base's own entries come first, as the base sent them, without the rewriter's."""
    endpoint = gateway.base(tenant)
    listed = await endpoint.json("/models", method="GET")
    if not isinstance(listed, dict) or not isinstance(listed.get("data"), list):
        raise UpstreamError("the base model's list of models is garbled", code="upstream_garbled")
    own = [model for model in listed["data"] if not gateway.reserved.hides(tenant, _name(model))]
    voices = [_voice(model, profile) for model in own if _name(model) for profile in sorted(tenant.request_profiles)]
    await call.respond(200, orjson.dumps({**listed, "data": [*own, *voices]}))


def _name(model: Any) -> str:
    """ "" for an entry that has none."""
    name = model.get("id") if isinstance(model, dict) else None
    return name if isinstance(name, str) else ""


def _voice(model: dict[str, Any], profile: str) -> dict[str, Any]:
    return {
        "id": f"{model['id']}@{profile}",
        "object": "model",
        "created": model.get("created", 0),
        "owned_by": "visa-proxy",
        "parent": model["id"],
    }
