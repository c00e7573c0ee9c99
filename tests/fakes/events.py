"""What a client reads of a stream of chunks."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.base import DONE


def parsed(raw: bytes) -> list[Any]:
    """The chunks of a well-formed stream: comments aside, every event is one JSON with choices, and [DONE] ends it."""
    assert raw.endswith(DONE), raw[-300:]
    parts = [part for part in raw.removesuffix(DONE).split(b"\n\n") if part and not part.startswith(b":")]
    assert all(part.startswith(b"data: ") for part in parts)
    chunks = [json.loads(part.removeprefix(b"data: ")) for part in parts]
    assert all("choices" in each for each in chunks), chunks[-1]
    return chunks


def events(raw: bytes) -> list[Any]:
    """The events of any stream, errors among them; comments and [DONE] aside."""
    return [json.loads(part.removeprefix(b"data: ")) for part in raw.split(b"\n\n") if part.startswith(b"data: {")]


def text_of(chunks: list[Any], index: int | None = None) -> str:
    """What they say, of chat or completions: in the choice `index`, or in all of them. Errors say nothing."""
    choices = [choice for each in chunks for choice in each.get("choices", ()) if index in (None, choice["index"])]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)
