"""A worker asks its parent: one question and one answer at a time, over a pair of sockets that only the two of them have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger("visa_proxy.workers")

TIMEOUT_S: Final = 10.0
"""For the answer to one question."""
_HEAD: Final = 8
"""Bytes that say how many follow."""
_PIECE: Final = 1 << 20


class Channel:
    """The worker's end. It blocks: the parent answers from memory, in less time than a switch to another request would take.

    Questions are numbered, and an answer bears the number of its question: one that comes too late is thrown away, and not taken for
    the answer to the next question, which may be another tenant's.
    """

    def __init__(self, end: socket.socket, lost: Callable[[], None]) -> None:
        """`lost` is called when nothing can be asked any more."""
        self._end = end
        self._lost = lost
        self._number = 0
        self._unsent = memoryview(b"")
        """The rest of a question that has left in part."""
        self._come = bytearray()
        """The beginning of an answer."""

    def ask(self, what: str, *arguments: Any) -> Any:
        """What the parent's handler returns.

        Raises TimeoutError when it does not come in time, and only this question is lost; another OSError when the parent is gone, or
        failed.
        """
        deadline = time.monotonic() + TIMEOUT_S
        self._number += 1
        try:
            self._send(deadline)  # what is left of a question that took too long
            self._unsent = memoryview(_frame((self._number, what, arguments)))
            self._send(deadline)
            while True:
                number, found = pickle.loads(self._receive(deadline))  # noqa: S301 - from our own parent
                if number == self._number:
                    return found
        except TimeoutError:
            logger.error("%s: the parent process did not answer within %g s", what, TIMEOUT_S)
            raise
        except OSError:
            self._end.close()
            self._lost()
            raise

    def _send(self, deadline: float) -> None:
        while self._unsent:
            self._wait_until(deadline)
            self._unsent = self._unsent[self._end.send(self._unsent[:_PIECE]) :]

    def _receive(self, deadline: float) -> bytes:
        """The next answer. What has come of it when the time is over stays for the next call."""
        while len(self._come) < _HEAD or len(self._come) < _HEAD + int.from_bytes(self._come[:_HEAD], "big"):
            self._wait_until(deadline)
            piece = self._end.recv(_PIECE)
            if not piece:
                raise ConnectionError("the parent process is gone")
            self._come += piece
        end = _HEAD + int.from_bytes(self._come[:_HEAD], "big")
        answer = bytes(self._come[_HEAD:end])
        del self._come[:end]
        return answer

    def _wait_until(self, deadline: float) -> None:
        """Bounds what is sent or received next. Raises TimeoutError."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._end.settimeout(left_s)


async def answer(end: socket.socket, handlers: dict[str, Callable[..., Any]]) -> None:
    """The parent's end: answers until the worker is gone, or a handler fails: then it hangs up."""
    reader, writer = await asyncio.open_connection(sock=end)
    what = "a question"
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(_HEAD), "big")
                number, what, arguments = pickle.loads(await reader.readexactly(size))  # noqa: S301 - from our own child
                writer.write(_frame((number, handlers[what](*arguments))))
                await writer.drain()
    except Exception as error:
        # Not the message: it may quote what was asked.
        logger.error("%s failed: %s", what, type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
    finally:
        writer.close()


def _frame(data: Any) -> bytes:
    content = pickle.dumps(data)
    return len(content).to_bytes(_HEAD, "big") + content
