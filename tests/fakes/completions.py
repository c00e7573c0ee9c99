"""The legacy completions surface of the fake base model: text only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.fakes.said import USAGE, Json, Says, all_says, pieces

TEXT_HEAD: Json = {"id": "cmpl-base-1", "created": 1_700_000_001, "model": "sample", "system_fingerprint": "fp_base"}


def prompts(prompt: Any) -> int:
    """How many prompts a request holds: a string or token ids are one, a list of either is as many."""
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def text_completion(*texts: str | Says) -> Json:
    """A whole answer."""
    said = all_says(texts)
    choices = [
        {"index": i, "text": each.text or "", "logprobs": None, "finish_reason": each.finish} for i, each in enumerate(said)
    ]
    return {**TEXT_HEAD, "object": "text_completion", "choices": choices, "usage": USAGE, "x_extra": {"kept": True}}


def text_chunk(index: int, text: str, finish: str | None = None) -> Json:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
    return {**TEXT_HEAD, "object": "text_completion", "choices": [choice]}


def text_chunks(texts: Sequence[str | Says], *, usage: bool = False) -> list[Json]:
    """The chunks of a streamed answer, [DONE] aside; the choices come word by word, in turn."""
    said = all_says(texts)
    words = [pieces(each.text) for each in said]
    chunks = []
    for position in range(max(map(len, words), default=0)):
        chunks += [text_chunk(i, each[position]) for i, each in enumerate(words) if position < len(each)]
    chunks += [text_chunk(i, "", each.finish) for i, each in enumerate(said)]
    if usage:
        last = {**TEXT_HEAD, "object": "text_completion", "choices": [], "usage": USAGE}
        chunks = [{**each, "usage": None} for each in chunks] + [last]
    return chunks
