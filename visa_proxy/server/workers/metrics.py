"""Metrics of all workers together: each counts in files of its own, and whoever is asked adds them up."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from visa_proxy.server.metrics import Metrics


def shared_metrics(folder: Path) -> Metrics:
    """The metrics of one worker; /metrics shows the sum over the files in `folder`."""

    def collected() -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        return registry

    return Metrics(collected)


def forget_gauges(folder: Path, worker: int) -> None:
    """A worker has ended: nothing of it is in flight any more. Its counters stay."""
    for file in folder.glob(f"gauge_live*_{worker}.db"):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
