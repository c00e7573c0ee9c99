"""What a Responses request refers to by id, spelled out as this tenant's client saw it."""

from __future__ import annotations

from typing import Any, Final

from visa_proxy.errors import RequestError
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.history import Kept
from visa_proxy.server.surfaces.base import Json

MAX_REFERENCES: Final = 100
"""Items that one request may refer to by id."""


def spelled_out(gateway: Gateway, tenant: Tenant, data: Json, *, rewritten: bool) -> Json:
    """A request with the responses and items that it refers to in their place; `data` itself when the base's own record will do.

    `rewritten`: the answer will be, so the base's own record of what is not known here will not do. Raises RequestError for what is
    not there, or not this tenant's.
    """
    known = _before(gateway, tenant, data.get("previous_response_id"), rewritten=rewritten)
    given = data.get("input")
    references = [i for i, item in enumerate(given if isinstance(given, list) else ()) if _refers(item)]
    if references:
        given = _resolved(gateway, tenant, list(given or ()), references, rewritten=rewritten)
    if known is not None:
        # Before what is known there may be turns that the base alone knows, and knows as the client saw them.
        rest = {name: value for name, value in data.items() if name != "previous_response_id"}
        earlier = {} if known.before is None else {"previous_response_id": known.before}
        return {**rest, **earlier, "input": [*known.conversation(), *input_items(given)]}
    return {**data, "input": given} if references else data


def input_items(given: Any) -> list[Json]:
    """The input of a request as items."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return list(given or [])


def _before(gateway: Gateway, tenant: Tenant, name: str | None, *, rewritten: bool) -> Kept | None:
    """The response that a request goes on from; None when the base's own record of it will do."""
    if name is None:
        return None
    turn = gateway.history.get(tenant.name, name)
    if turn is None:
        if gateway.alone and not rewritten:
            return None
        message = f"Previous response with id {name[:80]!r} not found."
        raise RequestError(message, param="previous_response_id", code="previous_response_not_found")
    if turn.plan is not None:
        message = f"Previous response with id {name[:80]!r} is not finished, or was not retrieved since: retrieve it first."
        raise RequestError(message, param="previous_response_id", code="previous_response_not_ready")
    return turn.kept


def _refers(item: Any) -> bool:
    """The API lets a reference leave its type out."""
    if not isinstance(item, dict) or "id" not in item:
        return False
    return item.get("type") == "item_reference" or (item.get("type") is None and not {"role", "content"} & set(item))


def _resolved(gateway: Gateway, tenant: Tenant, given: list[Any], references: list[int], *, rewritten: bool) -> list[Any]:
    """The input with items in the place of the references to them."""
    if len(references) > MAX_REFERENCES:
        raise RequestError(
            f"'input' refers to {len(references)} items by id, at most {MAX_REFERENCES} are allowed", param="input"
        )
    wanted = {str(given[i].get("id")) for i in references}
    found = gateway.history.items(tenant.name, wanted)
    for i in references:
        name = str(given[i].get("id"))
        if name in found:
            given[i] = found[name]
        elif rewritten or not gateway.alone:
            raise RequestError(f"Item with id {name[:80]!r} not found.", param=f"input[{i}].id", code="item_not_found")
    return given
