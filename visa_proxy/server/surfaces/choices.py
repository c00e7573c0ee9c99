"""Answers that are lists of choices: what chat completions and completions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from visa_proxy.errors import VisaError, error_body
from visa_proxy.llm import sse
from visa_proxy.server.surfaces.base import End, Json, Key, Raw, Slot, Step, Text, garbled


def choices_of(body: Json) -> list[tuple[int, Json]]:
    """The choices of a whole answer with their indices. Raises UpstreamError."""
    listed = body.get("choices")
    if not isinstance(listed, list) or not all(isinstance(choice, dict) for choice in listed):
        raise garbled("answer is no completion")
    return [(choice["index"] if isinstance(choice.get("index"), int) else place, choice) for place, choice in enumerate(listed)]


def json_asked(data: Json) -> bool:
    """Whether `response_format` asks for anything but text; vLLM takes it for completions too."""
    kind = data.get("response_format")
    return isinstance(kind, dict) and kind.get("type", "text") != "text"


def label(key: Key) -> Json:
    """How a choice is named."""
    return {"index": key[0]}


def absent(tools: Any, refusal: Any) -> str:
    """Why a choice has no text."""
    if tools:
        return "skipped:tool-calls"
    return "skipped:refusal" if refusal else "skipped:empty"


def slot(index: int, holder: Json, name: str, why: str) -> Slot:
    """The text of a choice; `why` counts when there is none."""
    text = holder.get(name)
    if text is not None and not isinstance(text, str):
        return Slot((index,), "", "skipped:not-text", holder, name)
    return Slot((index,), text or "", None if text and text.strip() else why, holder, name)


class ChoicesDecoder(ABC):
    """A streamed answer whose events are chunks with choices."""

    says_done = True

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}
        self._head: Json = {}
        self._silent: dict[Key, str] = {}

    @abstractmethod
    def _take(self, choice: Json) -> tuple[str, Json | None, Json | None]:
        """(text, what of the choice goes before it, what goes after it)."""

    @abstractmethod
    def _put(self, choice: Json, text: str) -> Json:
        """The choice with only `text` in it."""

    @abstractmethod
    def _without_text(self, choice: Json) -> str:
        """Why a choice like this one has no text."""

    @property
    def finished(self) -> bool:
        """Every choice has said that it is finished."""
        return bool(self._open) and not any(self._open.values())

    def read(self, event: Json) -> list[Step]:
        """See Decoder."""
        self._head = event
        choices = event.get("choices")
        if not choices:
            return [Raw(event, last=True)]
        before: list[Json] = []
        after: list[Json] = []
        texts: list[Step] = []
        ends: list[Step] = []
        for place, choice in enumerate(choices):
            index = choice["index"] = int(choice.get("index", place))  # some servers send a string, some none
            key = (index,)
            text, first, then = self._take(choice)
            if text:
                texts.append(Text(key, text, {**event, "choices": [choice]}))
            if self._silent.get(key, "skipped:empty") == "skipped:empty":
                self._silent[key] = self._without_text(choice)
            if first is not None:
                before.append(first)
            if then is not None:
                after.append(then)
                ends.append(End(key))
            self._open[index] = self._open.get(index, True) and choice.get("finish_reason") is None
        steps: list[Step] = [Raw({**event, "choices": before})] if before else []
        steps += texts + ends
        if after:
            steps.append(Raw({**event, "choices": after}, last=not all(self._open.values())))
        return steps

    def speak(self, text: Text, rewritten: str) -> Json:
        """See Decoder."""
        assert text.template is not None, "chunks always carry their own text"
        choice = text.template["choices"][0]
        said = {**self._put(choice, rewritten), "finish_reason": None}
        if "logprobs" in choice:
            said["logprobs"] = None
        return {**text.template, "choices": [said]}

    def settle(self, event: Json, sent: Mapping[Key, str]) -> Json:
        """Chunks never repeat a text."""
        return event

    def conclude(self, event: Json | None, visa: Json) -> Json:
        """See Decoder."""
        return {**(event if event is not None else {**self._head, "choices": []}), "visa": visa}

    def silent(self) -> dict[Key, str]:
        """See Decoder."""
        return self._silent

    def frame(self, event: Json) -> bytes:
        """See Decoder."""
        return sse.frame(event)

    def failure(self, error: VisaError) -> bytes:
        """See Decoder."""
        return sse.frame(error_body(error))
