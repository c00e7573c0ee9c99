"""What experiments assign, as one request tells it."""

from __future__ import annotations

from typing import Any

from visa_proxy.policy.assign import NOBODY, Experiment, Units
from visa_proxy.server.call import Call
from visa_proxy.server.surfaces.base import Json, Request


def units_of(call: Call, request: Request, experiments: tuple[Experiment, ...]) -> Units:
    """The user, the conversation and the headers that `experiments` look at, as far as the request says.

    The user is `user`, else `safety_identifier`, which names a user in its place. (`prompt_cache_key`, the other heir of `user`, does
    not: whoever shares a prompt may share it.) The conversation is the Responses API's `conversation`, by its id, else
    `metadata.conversation_id`. A `previous_response_id` is none: it is another one at each turn, and the first turn has none.
    Nobody, where the request brings an instruction.
    """
    # What a caller asks for by itself is no arm's; an arm that cannot take it would refuse what another one answers.
    if not experiments or b"x-visa-instruction" in call.headers:
        return NOBODY
    headers: dict[str, str] = {}
    for experiment in experiments:
        value = call.headers.get(experiment.header.encode()) if experiment.header else None
        if value is not None:
            # Bytes that are no UTF-8 stay apart from one another.
            headers[experiment.header] = value.decode("utf-8", "surrogateescape")
    data = request.data
    return Units(request.user or _text(data.get("safety_identifier")), _conversation(data), headers)


def _conversation(data: Json) -> str | None:
    given, metadata = data.get("conversation"), data.get("metadata")
    named = _text(given.get("id") if isinstance(given, dict) else given)
    return named or (_text(metadata.get("conversation_id")) if isinstance(metadata, dict) else None)


def _text(value: Any) -> str | None:
    """What is of another type is the base's to refuse."""
    return value if isinstance(value, str) else None
