"""Real servers on 127.0.0.1: well-behaved ones (aiohttp) and ones that send any bytes (sockets)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

HOST = "127.0.0.1"
_bound: deque[socket.socket] = deque()


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serves `app`; the value is its URL. A handler is cancelled when its client goes."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://{HOST}:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def sending(reply: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that reads a request and then lets `reply` write what it likes; the connection closes when `reply` returns."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            await reply(writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def sends(*parts: bytes, pause_s: float = 0.01) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A reply of fixed bytes, written one part after the other."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return reply


def closed_port() -> int:
    """A port nobody listens on, nor will: it stays bound for a while, or the next server of any test might be given it."""
    probe = socket.socket()
    probe.bind((HOST, 0))
    _bound.append(probe)
    if len(_bound) > 64:
        _bound.popleft().close()
    return int(probe.getsockname()[1])


async def until(condition: Callable[[], bool], seconds: float = 5.0, what: str = "condition") -> float:
    """Seconds until `condition` holds; fails after `seconds`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"{what} did not hold within {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - start
