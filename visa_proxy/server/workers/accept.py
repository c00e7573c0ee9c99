"""Accepting from a socket that other processes listen on too."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn

from visa_proxy.server.run import Server

PAUSE_S: Final = 1.0
"""After the system had no file descriptor left for a connection."""


class Sharing(Server):
    """Takes one connection for each turn of its event loop: a worker that is busy leaves the next one to another.

    A server that empties the queue whenever it looks, as event loops do of themselves, gives most connections to whoever looks first.
    """

    def __init__(self, config: uvicorn.Config, address: socket.socket) -> None:
        """`address` listens, and does not block."""
        super().__init__(config)
        self._address = address
        self._opening: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(self._address, self._accept)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self._address)
        self._address.close()
        await super().shutdown(sockets=[])

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._address.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another took it, or it is gone
            return
        except OSError:
            loop.remove_reader(self._address)
            loop.call_later(PAUSE_S, self._resume)
            return
        connection.setblocking(False)
        opening = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _resume(self) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(self._address, self._accept)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
