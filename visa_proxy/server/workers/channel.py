"""A worker asks its parent: one question and one answer at a time, over a pair of sockets that only the two of them have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import socket
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger("visa_proxy.workers")

TIMEOUT_S: Final = 10.0
"""A parent that takes longer hangs."""
_HEAD: Final = 8
"""Bytes that say how many follow."""


class Channel:
    """The worker's end. It blocks: the parent answers from memory, in less time than a switch to another request would take."""

    def __init__(self, end: socket.socket, lost: Callable[[], None]) -> None:
        """`lost` is called when nothing can be asked any more."""
        end.settimeout(TIMEOUT_S)
        self._end = end
        self._lost = lost

    def ask(self, what: str, *arguments: Any) -> Any:
        """What the parent's handler returns. Raises OSError when it is gone, failed, or does not answer in time."""
        try:
            self._end.sendall(_frame((what, arguments)))
            size = int.from_bytes(self._receive(_HEAD), "big")
            return pickle.loads(self._receive(size))  # noqa: S301 - from our own parent
        except OSError:
            # An answer that comes too late would be taken for the answer to the next question, which may be another tenant's.
            self._end.close()
            self._lost()
            raise

    def _receive(self, size: int) -> bytes:
        answer = bytearray()
        while len(answer) < size:
            piece = self._end.recv(min(size - len(answer), 1 << 20))
            if not piece:
                raise ConnectionError("the parent process is gone")
            answer += piece
        return bytes(answer)


async def answer(end: socket.socket, handlers: dict[str, Callable[..., Any]]) -> None:
    """The parent's end: answers until the worker is gone, or a handler fails: then it hangs up."""
    reader, writer = await asyncio.open_connection(sock=end)
    what = "a question"
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(_HEAD), "big")
                what, arguments = pickle.loads(await reader.readexactly(size))  # noqa: S301 - from our own child
                writer.write(_frame(handlers[what](*arguments)))
                await writer.drain()
    except Exception as error:
        # Not the message: it may quote what was asked.
        logger.error("%s failed: %s", what, type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
    finally:
        writer.close()


def _frame(data: Any) -> bytes:
    content = pickle.dumps(data)
    return len(content).to_bytes(_HEAD, "big") + content
