"""Serving an app: uvicorn, on uvloop and httptools."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from visa_proxy.errors import RequestError, error_body


class Protocol(HttpToolsProtocol):
    """What is no HTTP, such as a header with a control character, is answered in OpenAI's shape too."""

    def send_400_response(self, msg: str) -> None:
        body = orjson.dumps(error_body(RequestError(msg, code="invalid_http")))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        head += f"x-request-id: req_{os.urandom(12).hex()}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


class Guest(uvicorn.Server):
    """A second server in one process: leaves the signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: Any, *, host: str, port: int, drain_s: float = 30.0, guest: bool = False) -> uvicorn.Server:
    """A server for `app`; `await serve()` runs it until SIGTERM or SIGINT, then lets requests in flight finish for `drain_s`.

    A `guest` runs until its `should_exit` is set.
    """
    return (Guest if guest else uvicorn.Server)(
        uvicorn.Config(
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
    )
