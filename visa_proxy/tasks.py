"""Tasks that run beside requests, and their end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancels `task` and waits until it is over; nothing to do for None. What the task raises beside its cancellation is raised here."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
