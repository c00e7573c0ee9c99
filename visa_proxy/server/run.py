"""Serving an app: uvicorn, on uvloop and httptools."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn


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
            http="httptools",
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
