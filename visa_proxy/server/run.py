"""Serving an app: uvicorn, on uvloop and httptools."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from visa_proxy.errors import ConfigError, HeadersTooLarge, RequestError, RequestTimeout, VisaError, error_body
from visa_proxy.server.app import Proxy
from visa_proxy.server.call import new_request_id

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers, whoever asks; a tenant's `limits.header_kb` may be less."""
HEAD_S: Final = 30.0
"""From the first byte of a request, or the start of its connection, to the end of its headers."""
LINGER_S: Final = 5.0
"""How long the rest of a body may come after the answer: closing at once could destroy an answer that is still on its way."""
IDLE_S: Final = 120.0
"""How long a client may read nothing, unless the app says otherwise."""
YOUNG: Final = 10_000
"""New objects after which the garbage collector looks at them; Python's own 700 are a few requests."""
_BACKLOG: Final = 2048
_FRAMING: Final = 8
"""Bytes of chunk framing that a byte of body may bring along: a client may send single bytes, each a chunk."""


class _Ignored(list[tuple[bytes, bytes]]):
    """Where trailers go: added to the headers they would be obeyed, after all that was checked."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        pass


_TRAILERS: Final = _Ignored()


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with bounds on what one connection may cost before and after the app sees a request.

    What is no HTTP, too large or too slow is answered in OpenAI's shape too, and ends the connection. No bound costs a timer while
    a request comes in one piece and its answer is read as it goes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._in_body = False
        self._overhead = 0
        """Bytes of the present request that are no body: its head, chunk framing, trailers."""
        self._refusal: VisaError | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Ends a head, or a body that nobody waits for, that takes too long."""
        self._reading: asyncio.TimerHandle | None = None
        """Looks whether the client reads, while there is something for it to read."""
        self._unread = 0
        self._read_at = 0.0
        self._idle_s = IDLE_S
        self._stop: Callable[[], None] | None = None
        """Of an answer that has no end by itself: called when the server stops, which would wait for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(HEAD_S, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._reading is not None:
            self._reading.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Blank lines before a request begin it: they end uvicorn's own wait for one.
        self._in_head = self._in_head or not self._in_body
        self._overhead += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._overhead > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        elif self._in_head and self._timer is None:
            self._arm(HEAD_S, self._late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._stop = None
        self.scope["extensions"] = {
            "visa_proxy.idle": {"set": self._set_idle},
            "visa_proxy.stopping": {"call": self._call_stopping},
        }

    def on_headers_complete(self) -> None:
        # A head that came in one piece was not yet counted apart from the body that came with it.
        if self._overhead > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refusal = _too_large()
            raise self._refusal
        self._in_head, self._in_body = False, True
        self._disarm()
        super().on_headers_complete()
        self.headers = _TRAILERS

    def on_body(self, body: bytes) -> None:
        self._overhead = max(0, self._overhead - (1 + _FRAMING) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._overhead = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            self._arm(LINGER_S, self.transport.close)
        if self.transport.get_write_buffer_size():
            self._watch_reading()

    def shutdown(self) -> None:
        if self._stop is not None:
            self._stop()
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_at = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        # To close would be to wait for the client to read what is left.
        self.transport.abort() if self.transport.get_write_buffer_size() else super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or RequestError(msg, code="invalid_http"))

    def _refuse(self, error: VisaError) -> None:
        """Answer for the app, unless an answer of its own is due or has begun; then close."""
        cycle = self.cycle
        free = cycle is None or cycle.response_complete if self._in_head else not cycle.response_started and not self.pipeline
        if free:
            body = orjson.dumps(error_body(error))
            status = f"{error.status} {_REASONS.get(error.status, 'Bad Request')}"
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            head += f"x-request-id: {new_request_id()}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The head of a further request: the answer to the one before it is what the client waits for.
            self._arm(HEAD_S, self._late)
        else:
            self._refuse(RequestTimeout(f"the request's headers did not arrive within {HEAD_S:g} s"))

    def _set_idle(self, seconds: float) -> None:
        self._idle_s = seconds

    def _call_stopping(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def _watch_reading(self) -> None:
        if self._reading is None:
            self._read_at = self.loop.time()
            self._unread = self._left()
            self._reading = self.loop.call_later(self._idle_s / 4, self._look)

    def _left(self) -> int:
        """Bytes that the client has not taken: ours and those in the system's queue, which takes more only by the megabyte."""
        queued = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _look(self) -> None:
        """Abort when the client has read nothing for `_idle_s` of what waits for it. Nothing new is written meanwhile."""
        self._reading = None
        waiting = self.flow.write_paused or self.cycle.response_complete
        if not waiting or not self.transport.get_write_buffer_size():
            return
        unread, now = self._left(), self.loop.time()
        if unread < self._unread:
            self._read_at = now
        if now - self._read_at >= self._idle_s:
            self.transport.abort()
            return
        self._unread = unread
        self._reading = self.loop.call_later(self._idle_s / 4, self._look)


_REASONS: Final = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"request line and headers, or what comes beside the body, exceed {MAX_HEAD_BYTES} bytes")


class Server(uvicorn.Server):
    """What its process is for. Once all is loaded, the garbage collector leaves that alone, and looks less often.

    Modules, policies and models stay until the end: to look through them again and again was a tenth of what a passed-through request cost.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


class Guest(uvicorn.Server):
    """A second server in one process: leaves the signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: Any, *, host: str, port: int, drain_s: float = 30.0, guest: bool = False) -> uvicorn.Server:
    """A server for `app`; `await serve()` runs it until SIGTERM or SIGINT, then lets requests in flight finish for `drain_s`.

    A `guest` runs until its `should_exit` is set.
    """
    return (Guest if guest else Server)(settings(app, host=host, port=port, drain_s=drain_s))


def settings(app: Any, *, host: str, port: int, drain_s: float) -> uvicorn.Config:
    """How every server of ours speaks."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        loop="uvloop",
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
        log_config=None,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        timeout_keep_alive=75,
    )


def run(app: Proxy, *, host: str, port: int, drain_s: float) -> None:
    """Serve `app` until SIGTERM or SIGINT. Raises ConfigError when the address cannot be listened on.

    Ends the process with status 2 when the app cannot start; it has said why.
    """
    with listening(host, port) as address:
        try:
            make_server(app, host=host, port=port, drain_s=drain_s).run(sockets=[address])
        except SystemExit:
            if app.failure is not None:
                sys.exit(2)
            raise


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything takes its time to start. Raises ConfigError when there is none to be had."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        address = socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError([f"server: cannot listen on {host}:{port}: {_reason(error)}"]) from error
    address.setblocking(False)
    return address


def _reason(error: OSError) -> str:
    """Without the address, which Python may have added."""
    return str(error.strerror) if isinstance(error, socket.gaierror) or error.errno is None else os.strerror(error.errno)
