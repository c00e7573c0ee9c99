"""The URLs that LiteLLM's SDK can answer: which fields they take, which function of it they are, what their streams look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.llm import litellm_answers as answers
from visa_proxy.llm import sse

Json = dict[str, Any]

_COMMON: Final = (
    "frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop temperature top_p user top_k".split()
)
CHAT_FIELDS: Final = frozenset(
    _COMMON
    + "messages audio function_call functions max_completion_tokens modalities parallel_tool_calls prediction prompt_cache_key".split()
    + "prompt_cache_retention reasoning_effort response_format safety_identifier service_tier store thinking tool_choice tools".split()
    + "top_logprobs verbosity web_search_options".split()
)
TEXT_FIELDS: Final = frozenset([*_COMMON, "prompt", "best_of", "echo", "suffix"])
RESPONSES_FIELDS: Final = frozenset(
    "include input instructions max_output_tokens max_tool_calls metadata parallel_tool_calls previous_response_id prompt".split()
    + "prompt_cache_key prompt_cache_retention reasoning safety_identifier service_tier store temperature text tool_choice".split()
    + "tools top_logprobs top_p truncation user".split()
)
"""What a client may say: OpenAI's fields, with Anthropic's `thinking` and the usual `top_k`.

A list of what is let through and not of what is not: a call of the SDK takes its keys, addresses, files with credentials, callbacks and
mock answers in arguments beside these.
"""
NOT_SENT: Final = frozenset(("model", "stream", "stream_options", "metadata"))
"""Fields that are taken and not handed on as they are; metadata of a chat is a note to what the provider stores."""

HANDED_ON: Final = ("openai/", "azure/")
"""Providers that are told a URL as it is. For others the SDK may fetch what is there, from where we run and with what we can reach."""
_URLS: Final = ("url", "image_url", "video_url", "file_url", "file_data", "file_id")

_LAST: Final = frozenset(("response.completed", "response.failed", "response.incomplete", "error"))
"""Events that end a streamed response."""


@dataclass(frozen=True)
class Surface:
    """One generating URL."""

    fields: frozenset[str]
    call: str
    """The function of the SDK."""
    whole: Callable[[Any, str], Json]
    part: Callable[[Any, str], Json] | None = None
    """A chunk of a stream; None: its events are those of the Responses API."""
    split: Callable[[Json], Iterator[Json]] | None = None
    """A whole answer as chunks."""

    def several(self, data: Json) -> bool:
        """Whether more than one choice is asked for.

        When several are in one stream, the SDK tells the end of one only, and not of which: such an answer is awaited whole.
        """
        return self.split is not None and (data.get("n") not in (None, 1) or isinstance(data.get("prompt"), list))

    def frames(self, whole: Json, *, usage: bool) -> Iterator[bytes]:
        """A whole answer as the frames of a stream."""
        assert self.split is not None
        for chunk in self.split(whole):
            if chunk["choices"] or usage:
                yield sse.frame({"usage": None, **chunk} if usage else chunk)
        yield sse.DONE


SURFACES: Final[Mapping[str, Surface]] = {
    "/chat/completions": Surface(CHAT_FIELDS, "acompletion", answers.chat, answers.chat_chunk, answers.chat_chunks),
    "/completions": Surface(TEXT_FIELDS, "atext_completion", answers.text, answers.text_chunk, answers.text_chunks),
    "/responses": Surface(RESPONSES_FIELDS, "aresponses", answers.response),
}


def remote_url(data: Any) -> str | None:
    """A URL over the network, of an image or a file, in the messages or the input of a request; None where there is none."""
    if isinstance(data, list):
        return next((found for each in data if (found := remote_url(each)) is not None), None)
    if not isinstance(data, dict):
        return None
    for name, value in data.items():
        if isinstance(value, str):
            if name in _URLS and value.lower().lstrip().startswith(("http:", "https:", "gs:", "s3:", "file:", "ftp:")):
                return value
        elif (found := remote_url(value)) is not None:
            return found
    return None


class Stream:
    """One streamed answer, part by part."""

    def __init__(self, surface: Surface, model: str, source: Any, *, usage: bool) -> None:
        """`source`: the SDK's stream. `usage`: whether the client wants to be told."""
        self._part = surface.part
        self._model = model
        # A response that is made of a chat has that stream within.
        self._source = getattr(source, "litellm_custom_stream_wrapper", source)
        self._usage = usage
        self._events = answers.ResponseEvents(model)
        self.ended = False
        """The provider has said that this is all."""
        self.close = b"" if surface.part is None else sse.DONE
        """What follows the last part."""

    def frame(self, part: Any) -> bytes:
        """Raises AttributeError, KeyError, TypeError or ValueError for a part that cannot be read."""
        if self._part is None:
            event = self._events.read(part)
            self.ended = self.ended or (event["type"] in _LAST and self._told())
            return sse.frame(event, name=event["type"])
        chunk = self._part(part, self._model)
        self.ended = self.ended or (any(choice["finish_reason"] for choice in chunk["choices"]) and self._told())
        return sse.frame({"usage": None, **chunk} if self._usage else chunk)

    def _told(self) -> bool:
        """Of a stream that breaks off the SDK makes up the end; what it was told of it is kept apart from that."""
        marks = ("received_finish_reason", "intermittent_finish_reason")
        return not hasattr(self._source, marks[0]) or any(getattr(self._source, mark, None) for mark in marks)
