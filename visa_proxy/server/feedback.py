"""POST /v1/visa/feedback: what somebody thought of an answer."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import StringConstraints

from visa_proxy.errors import NotFound, PermissionDenied, RequestError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.policy.schema import Level
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.visa_api import Body, read_body
from visa_proxy.store.rows import Feedback


class FeedbackBody(Body):
    """About one answer of the tenant's; score, thumbs, label or comment, or several of them."""

    request_id: Annotated[str, StringConstraints(pattern=r"\A[\x21-\x7e]{1,128}\z")]
    """X-Request-Id of the answer."""
    score: Level | None = None
    thumbs: Literal["up", "down"] | None = None
    label: (
        Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"\A[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*\z")]
        | None
    ) = None
    comment: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None


async def feedback(call: Call, gateway: Gateway, tenant: Tenant) -> None:
    """{request_id, score?, thumbs?, label?, comment?} → {object, request_id, changed}, once it is durable.

    The id is looked up among the tenant's own answers when the feedback is read: an answer may be rated before its row is written, and
    of other tenants' answers nothing can be learned, not even that they exist. The last word about an answer replaces those before it.
    """
    body = await read_body(call, gateway, tenant, FeedbackBody)
    if gateway.store is None:
        raise NotFound("This proxy keeps no feedback: its config has no store", code="no_store")
    if body.score is None and body.thumbs is None and body.label is None and body.comment is None:
        raise RequestError("give at least one of score, thumbs, label and comment", param="score")
    if body.comment is not None and not tenant.store.text:
        raise PermissionDenied("This tenant's policy keeps no texts: send no comment", param="comment", code="text_not_allowed")
    said = Feedback(tenant.name, body.request_id, time.time(), body.score, body.thumbs, body.label, body.comment)
    changed = await gateway.store.feedback(said)
    await call.respond_json({"object": "visa.feedback", "request_id": body.request_id, "changed": changed})
