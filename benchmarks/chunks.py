"""Streams of small chunks, for the measure of what relaying one costs: the server that sends them, and the readers that count them.

    python benchmarks/chunks.py --port 9000        (the server, as a process of its own)

Raw asyncio protocols: neither side may cost more than what stands between them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import orjson
import uvloop
from proxy import ROOT, wait_for

CHUNKS: Final = 300
"""Of one answer; each is one SSE event."""
APART_S: Final = 0.02
"""Between two chunks of one stream: a model at 50 tokens a second."""
READ_S: Final = 60.0
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BODY: Final = b'{"model":"base","stream":true,"messages":[{"role":"user","content":"How should I plan my working day?"}]}'


def _event(text: str | None) -> bytes:
    if text is None:
        return b"data: [DONE]\n\n"
    delta = {"role": "assistant", "content": text}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_767_225_600, "model": "base"}
    return b"data: " + orjson.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) + b"\n\n"


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_CHUNK: Final = _frame(_event(" token"))
_END: Final = _frame(_event(None)) + b"0\r\n\r\n"
_JSON: Final = b'{"object":"list","data":[{"id":"base","object":"model"}]}'
_PLAIN: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_JSON), _JSON)


class Sender(asyncio.Protocol):
    """Answers a request for a stream with CHUNKS events, each written by itself, and any other with a list of models."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        lengths = [line for line in bytes(head).lower().split(b"\r\n") if line.startswith(b"content-length:")]
        wanted = int(lengths[0].partition(b":")[2]) if lengths else 0
        if not found or len(body) < wanted:
            return
        streamed = b'"stream":true' in body
        self._received.clear()
        if not streamed:
            self._transport.write(_PLAIN)
            return
        self._transport.write(_HEAD)
        self._started = self._loop.time()
        self._send(1)

    def _send(self, number: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_CHUNK if number <= CHUNKS else _END)
        if number <= CHUNKS:
            self._loop.call_at(self._started + number * APART_S, self._send, number + 1)


@dataclass
class Count:
    """What one round of readers received."""

    answers: int = 0
    events: int = 0
    reads: int = 0
    """How often a socket had something: fewer than events where chunks were put together on the way."""


class Reader(asyncio.Protocol):
    """Reads one answer after another on one connection until `count` answers were begun by all readers together."""

    def __init__(self, host: str, left: list[int], count: Count, done: asyncio.Future[None]) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer sk-test\r\n"
        self._request = f"{head}content-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n".encode() + _BODY
        self._left, self._count, self._done = left, count, done
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._next()

    def _next(self) -> None:
        if self._left[0] == 0:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._left[0] -= 1
        self._tail = b""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # An event may be split between two reads: the last bytes are looked at again, too few to hold a whole one.
        self._count.reads += 1
        text = self._tail + data
        self._count.events += text.count(b'"content":" token"') - self._tail.count(b'"content":" token"')
        self._tail = text[-17:]
        if text.endswith(b"0\r\n\r\n"):
            self._count.answers += 1
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the gateway broke off"))


async def _read(port: int, streams: int, answers: int) -> Count:
    loop = asyncio.get_running_loop()
    count, left = Count(), [answers]
    waits = [loop.create_future() for _ in range(streams)]
    host = f"127.0.0.1:{port}"
    for done in waits:
        # Apart from each other, as requests are: chunks of all streams would come in the same instant.
        await loop.create_connection(functools.partial(Reader, host, left, count, done), "127.0.0.1", port)
        await asyncio.sleep(APART_S / streams)
    async with asyncio.timeout(READ_S):
        await asyncio.gather(*waits)
    return count


def read(port: int, *, streams: int, answers: int) -> Count:
    """`answers` streamed answers, `streams` at a time. Raises ConnectionError or TimeoutError when one does not end well."""
    return uvloop.run(_read(port, streams, answers))


@contextlib.contextmanager
def sender(port: int, log: Path) -> Iterator[None]:
    """The server, until the context ends."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, __file__, "--port", str(port)], stdout=output, stderr=output, cwd=ROOT)
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models", process, log, ready=lambda answer: "data" in answer)
        yield
    finally:
        process.terminate()
        process.wait(15)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sender, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
