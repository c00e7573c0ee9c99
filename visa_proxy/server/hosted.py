"""A request that another gateway serves and tells us of: what is to be done with its answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import Call
from visa_proxy.server.generate import CHAT, plan_for
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json, Request
from visa_proxy.server.types import Message

logger = logging.getLogger("visa_proxy.requests")

_HIDDEN: Final = "[present]"
"""What LiteLLM says instead of the value of a header that it does not pass on."""


def hosted_plan(tenant: Tenant, data: Json, headers: Mapping[str, str]) -> tuple[Plan, dict[bytes, str]]:
    """The plan for a chat request with the fields `data`, and the X-Visa-* headers that say what was chosen.

    `data` needs `messages` and may hold whatever else is known of the request. Raises NotFound, PermissionDenied or RequestError
    naming the header.
    """
    known = [(name.lower(), value) for name, value in headers.items()]
    # A header that all requests share the stand-in of would put all of them into one arm.
    ours = {experiment.header for experiment in tenant.experiments}
    hidden = sorted(name for name, value in known if value == _HIDDEN and (name.startswith("x-visa-") or name in ours))
    if hidden:
        logger.warning("LiteLLM hides %s: list it under extra_headers of the guardrail's litellm_params", ", ".join(hidden))
    told = [(name.encode("latin-1", "replace"), value.encode()) for name, value in known if name not in hidden]
    scope = {"method": "POST", "path": CHAT.path, "query_string": b"", "headers": told}
    call = Call(scope, _nobody_asks, _nobody_listens)
    call.check_repeats()
    user = data.get("user")
    streams = data.get("stream") is True
    request = Request(CHAT, data, b"", None, None, streams, user if isinstance(user, str) else None)
    return plan_for(call, tenant, request), call.visa


async def _nobody_asks() -> Message:
    raise AssertionError("a request that another gateway serves has no body here")


async def _nobody_listens(message: Message) -> None:
    raise AssertionError("a request that another gateway serves is answered there")
