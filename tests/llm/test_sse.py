"""Server-sent events: the same events whatever the borders of the chunks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.errors import UpstreamError
from visa_proxy.llm import sse

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def read(chunks: Sequence[bytes], max_bytes: int = 1_000_000) -> list[str]:
    async def collect() -> list[str]:
        return [event async for event in sse.events(chunked(*chunks), max_bytes=max_bytes)]

    return asyncio.run(collect())


def cut(raw: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(TEXTS, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(min_value=0), max_size=8))
def test_any_json_survives_any_chunk_borders(texts: list[str], newline: str, places: list[int]) -> None:
    # ensure_ascii=False: U+2028, U+0085 and their like are ordinary in JSON and in SSE, but line ends to str.splitlines.
    raw = "".join(f"data: {json.dumps(text, ensure_ascii=False)}{newline}{newline}" for text in texts).encode()
    assert [json.loads(event) for event in read(cut(raw, places))] == texts


def test_frames_are_read_back() -> None:
    data = {"content": "a\u2028b\u0085c\nd ⟦ 🎈", "n": None}
    assert [json.loads(event) for event in read([sse.frame(data), sse.KEEP_ALIVE, sse.DONE][:2])] == [data]
    assert read([sse.DONE]) == ["[DONE]"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"data: a\n\ndata:b\n\ndata:  c\n\n", ["a", "b", " c"]),
        (b": comment\n\nevent: ping\n\nid: 3\ndata: x\nretry: 5\n\n", ["x"]),
        (b"data: one\ndata: two\n\n", ["one\ntwo"]),
        (b"data: a\r\n\r\ndata: b\n\ndata: c\r\r", ["a", "b", "c"]),
        (b"data: unfinished", ["unfinished"]),
        (b"data: \xf0\x9f\x8e\x88\n\n", ["🎈"]),
        (b"", []),
        (b"\n\n\n\n", []),
        (b"data\n\n", []),
    ],
)
def test_what_counts_as_data(raw: bytes, expected: list[str]) -> None:
    assert read([raw]) == expected
    assert read([raw[i : i + 1] for i in range(len(raw))]) == expected


def test_text_that_is_not_utf8_is_garbled() -> None:
    with pytest.raises(UpstreamError) as caught:
        read([b"data: \xff\xfe\n\n"])
    assert caught.value.code == "upstream_garbled"


def test_an_event_without_end_is_bounded() -> None:
    with pytest.raises(UpstreamError) as caught:
        read([b"data: " + b"x" * 100] * 20, max_bytes=1000)
    assert caught.value.code == "upstream_garbled"
