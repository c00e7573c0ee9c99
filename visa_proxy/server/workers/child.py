"""One worker: what it is told by its parent, and its server."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from visa_proxy.policy.config import ServerConfig


@dataclass(frozen=True)
class Assignment:
    """All that a worker needs; comes on its standard input. Numbers of sockets and files are those that it inherits."""

    index: int
    """0 … `config.workers` - 1; a worker that takes the place of another has the same."""
    config: ServerConfig
    address: int
    """The listening socket, which all workers accept from."""
    channel: int
    """Its end of the socket pair with its parent."""
    limits: int
    metrics: Path
    """Folder of the files with all workers' counters."""
    owned: bool
    """The parent keeps the rewriter's server."""
    parent: int
    """Its process id."""


def work(given: BinaryIO) -> None:
    """Serve until SIGTERM, then let requests in flight finish. Raises VisaError when the app cannot be built."""
    assignment: Assignment = pickle.load(given)  # noqa: S301 - from our own parent
    # uvicorn raises the signal again when it has drained, and what ends here must still be cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(assignment.metrics)
    try:
        _serve(assignment)
    finally:
        if os.getppid() != assignment.parent:  # it was killed, and cannot clean up
            shutil.rmtree(assignment.metrics, ignore_errors=True)


def _serve(assignment: Assignment) -> None:
    # Imported here: prometheus_client looks at the environment when it is imported.
    from prometheus_client import values

    from visa_proxy.server.app import create_app
    from visa_proxy.server.run import settings
    from visa_proxy.server.state import State
    from visa_proxy.server.workers.accept import Sharing
    from visa_proxy.server.workers.channel import Channel
    from visa_proxy.server.workers.engine import ParentEngine
    from visa_proxy.server.workers.history import SharedHistory
    from visa_proxy.server.workers.limits import SharedLimiter
    from visa_proxy.server.workers.metrics import shared_metrics

    # Files are named for the worker's place and not for its process: who takes the place goes on counting where the other ended.
    values.ValueClass = values.MultiProcessValue(lambda: assignment.index)  # type: ignore[no-untyped-call]
    config = assignment.config
    # Without its parent's ear a worker knows neither kept responses nor the rewriter: it ends in order, and another takes its place.
    channel = Channel(socket.socket(fileno=assignment.channel), lost=lambda: signal.raise_signal(signal.SIGTERM))
    history = SharedHistory(channel)
    state = State(
        shared_metrics(assignment.metrics),
        SharedLimiter(assignment.limits, worker=assignment.index, workers=config.workers),
        history,
        ParentEngine(channel) if assignment.owned else None,
    )
    app = create_app(config, state=state)
    history.policies = lambda: app.policies
    speaking = settings(app, host=config.host, port=config.port, drain_s=config.drain_s)
    Sharing(speaking, socket.socket(fileno=assignment.address)).run()
