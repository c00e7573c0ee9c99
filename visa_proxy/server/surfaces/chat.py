"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visa_proxy.errors import RequestError
from visa_proxy.server.surfaces.base import Json, Key, Slot, garbled, last_user_text, moved, positive, typed
from visa_proxy.server.surfaces.choices import ChoicesDecoder, absent, choices_of, json_asked, label, slot


@dataclass
class _Message(Slot):
    """The text of a message, whose annotations speak of places in it."""

    def replace(self, text: str) -> None:
        if self.holder.get("annotations"):
            self.holder["annotations"] = [moved(each, self.text, text) for each in self.holder["annotations"]]
        super().replace(text)


class ChatDecoder(ChoicesDecoder):
    """Chunks with deltas of messages."""

    def __init__(self) -> None:
        super().__init__()
        self._base: dict[Key, list[str]] = {}

    def settle(self, event: Json, sent: Mapping[Key, str]) -> Json:
        """See Decoder. Annotations come after the text that they are about."""
        for choice in event.get("choices") or ():
            key, delta = (choice["index"],), choice.get("delta") or {}
            if delta.get("annotations") and key in sent:
                base = "".join(self._base[key])
                delta["annotations"] = [moved(each, base, sent[key]) for each in delta["annotations"]]
        return event

    def _take(self, choice: Json) -> tuple[str, Json | None, Json | None]:
        key, delta = (choice["index"],), choice.get("delta") or {}
        choice.pop("message", None)  # some servers repeat all of the text so far
        content = delta.get("content")
        text = content if isinstance(content, str) else ""
        spoken = key in self._base
        # What follows text stays behind it, whatever it is.
        later = spoken and any(value for name, value in delta.items() if name != "role" and (name != "content" or not text))
        trails = choice.get("finish_reason") is not None or bool(delta.get("tool_calls") or delta.get("function_call")) or later
        if not text:
            return "", None if trails else choice, choice if trails else None
        self._base.setdefault(key, []).append(text)
        # Some servers say the role in every chunk.
        rest = {n: v for n, v in delta.items() if n != "content" and v is not None and not (spoken and n == "role")}
        if not trails:
            return text, {**choice, "delta": rest} if rest else None, None
        role = {"role": rest.pop("role")} if "role" in rest else {}
        return text, {**choice, "delta": role, "finish_reason": None} if role else None, {**choice, "delta": rest}

    def _put(self, choice: Json, text: str) -> Json:
        return {**choice, "delta": {"content": text}}

    def _without_text(self, choice: Json) -> str:
        delta = choice.get("delta") or {}
        if not isinstance(delta.get("content") or "", str):
            return "skipped:not-text"
        return absent(delta.get("tool_calls") or delta.get("function_call"), delta.get("refusal"))


class ChatSurface:
    """Messages in, messages out."""

    path = "/chat/completions"
    listed = "choices"

    def check(self, data: Json) -> None:
        """See Surface."""
        messages = typed(data, "messages", list, "an array")
        if messages is None:
            raise RequestError("you must provide a messages parameter", param="messages")
        if not messages:
            raise RequestError("'messages' must be a non-empty array of messages", param="messages")
        for i, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise RequestError(f"messages[{i}] must be an object with a 'role'", param=f"messages[{i}]")
        positive(data, "n")

    def skip(self, data: Json) -> str | None:
        """See Surface."""
        if data.get("logprobs"):
            return "skipped:logprobs"
        modalities = data.get("modalities")
        if data.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
            return "skipped:audio"
        if data.get("web_search_options") is not None:
            return "skipped:citations"
        return "skipped:echo" if data.get("echo") else None

    def json_asked(self, data: Json) -> bool:
        """See Surface."""
        return json_asked(data)

    def query(self, data: Json, key: Key) -> str:
        """The last message of the user."""
        return last_user_text(data["messages"])

    def slots(self, body: Json) -> list[Slot]:
        """See Surface."""
        slots: list[Slot] = []
        for index, choice in choices_of(body):
            message = choice.get("message")
            if not isinstance(message, dict):
                raise garbled("answer has a choice without a message")
            why = absent(message.get("tool_calls") or message.get("function_call"), message.get("refusal"))
            found = slot(index, message, "content", why)
            slots.append(_Message(found.key, found.text, found.skip, found.holder, found.name))
        return slots

    def label(self, key: Key) -> Json:
        """See Surface."""
        return label(key)

    def decoder(self) -> ChatDecoder:
        """See Surface."""
        return ChatDecoder()
