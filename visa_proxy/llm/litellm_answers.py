"""What LiteLLM's SDK gives, in the words of OpenAI's API.

Its objects hold more than the API has (`provider_specific_fields`, a null for every field of every provider), and less: nulls that clients
look at. `model` is what the client asked for, as it is with other gateways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def chat(answer: Any, model: str) -> Json:
    """A whole chat completion."""
    data = _plain(answer, model)
    data["choices"] = [
        {
            "index": each.get("index", 0),
            "message": {"role": "assistant", "content": None, "refusal": None, **_message(each["message"])},
            "logprobs": each.get("logprobs"),
            "finish_reason": each.get("finish_reason"),
        }
        for each in data["choices"]
    ]
    return data


def chat_chunk(part: Any, model: str) -> Json:
    """One chunk of a streamed chat completion; that with the usage has no choice."""
    data = _plain(part, model)
    choices = [_chunk_choice(each.get("index", 0), _message(each.get("delta", {})), each) for each in data["choices"]]
    data["choices"] = [] if data.get("usage") and not any(each["delta"] or each["finish_reason"] for each in choices) else choices
    return data


def chat_chunks(whole: Json) -> Iterator[Json]:
    """A whole chat completion as a stream: each choice at once, then why it ended, then the usage."""
    head = {**whole, "object": "chat.completion.chunk"}
    usage = head.pop("usage", None)
    for each in whole["choices"]:
        said = {key: value for key, value in each["message"].items() if value is not None}
        if "tool_calls" in said:
            said["tool_calls"] = [{"index": i, **call} for i, call in enumerate(said["tool_calls"])]
        yield {**head, "choices": [_chunk_choice(each["index"], said, {"logprobs": each["logprobs"]})]}
        yield {**head, "choices": [_chunk_choice(each["index"], {}, {"finish_reason": each["finish_reason"]})]}
    if usage is not None:
        yield {**head, "choices": [], "usage": usage}


def text(answer: Any, model: str) -> Json:
    """A whole completion of a prompt."""
    data = _plain(answer, model)
    data["choices"] = [_text_choice(each, each.get("text")) for each in data["choices"]]
    return data


def text_chunk(part: Any, model: str) -> Json:
    """One chunk of a streamed completion of a prompt; the SDK streams these as it does chats."""
    data = {**chat_chunk(part, model), "object": "text_completion"}
    data["choices"] = [_text_choice(each, each["delta"].get("content")) for each in data["choices"]]
    return data


def text_chunks(whole: Json) -> Iterator[Json]:
    """A whole completion as a stream."""
    head = {**whole}
    usage = head.pop("usage", None)
    for each in whole["choices"]:
        yield {**head, "choices": [each]}
    if usage is not None:
        yield {**head, "choices": [], "usage": usage}


def response(answer: Any, model: str) -> Json:
    """A response of the Responses API: just the fields that were set."""
    return _response(answer.model_dump(mode="json", exclude_unset=True, warnings=False), model)


class ResponseEvents:
    """The events of one streamed response.

    Where LiteLLM makes them of a chat it numbers none, and the last event calls the response and its items by other names than the first.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._count = 0
        self._id: str | None = None
        self._items: dict[int, str] = {}

    def read(self, part: Any) -> Json:
        """The next one."""
        data: Json = part.model_dump(mode="json", exclude_unset=True, warnings=False)
        data["type"] = str(getattr(part.type, "value", part.type))
        item = data.get("item")
        if data["type"] == "response.output_item.added" and isinstance(item, dict):
            self._items[data["output_index"]] = item["id"]
        if isinstance(data.get("response"), dict):
            data["response"] = self._same(_response(data["response"], self._model))
        data["sequence_number"] = self._count
        self._count += 1
        return data

    def _same(self, data: Json) -> Json:
        self._id = self._id or data["id"]
        output = [
            {**item, "id": self._items[i]} if i in self._items and "id" in item else item
            for i, item in enumerate(data.get("output") or ())
        ]
        return {**data, "id": self._id, "output": output}


def _response(data: Json, model: str) -> Json:
    data.pop("provider_specific_fields", None)
    usage = data.get("usage")
    if isinstance(usage, dict):
        data["usage"] = {key: value for key, value in usage.items() if value is not None}
    return {**data, "object": "response", "model": model}


def _plain(answer: Any, model: str) -> Json:
    """Without nulls and without what only LiteLLM knows."""
    data: Json = answer.model_dump(mode="json", exclude_none=True, warnings=False)
    data.pop("provider_specific_fields", None)
    return {**data, "model": model}


def _message(message: Json) -> Json:
    """A message, or a piece of one."""
    refusal = (message.pop("provider_specific_fields", None) or {}).get("refusal")
    if refusal is not None:
        message["refusal"] = refusal
    for call in message.get("tool_calls", ()):
        call.pop("provider_specific_fields", None)
    return message


def _chunk_choice(index: int, delta: Json, given: Json) -> Json:
    return {"index": index, "delta": delta, "logprobs": given.get("logprobs"), "finish_reason": given.get("finish_reason")}


def _text_choice(given: Json, said: str | None) -> Json:
    return {
        "text": said or "",
        "index": given.get("index", 0),
        "logprobs": given.get("logprobs"),
        "finish_reason": given.get("finish_reason"),
    }
