"""What became of answers, told to whoever watches while it happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.errors import RateLimited
from visa_proxy.llm import sse
from visa_proxy.shield.trace import Trace

VIEWERS: Final = 16
"""At the same time, of one process."""
WAITING: Final = 200
"""News that a viewer may be behind; older ones are left out, and counted."""
KEEP_ALIVE_S: Final = 15.0
PAUSE_S: Final = 0.2
"""Between two looks at what is new: nobody reads faster, and what has come meanwhile leaves in one write."""
LASTS_S: Final = 3600.0
"""Then a viewer has to come again, and may be asked who it is."""

_TOLD: Final = ("status", "values", "similarity", "consistency")
"""Of what a client is told."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One answered request; no text of it."""

    request_id: str
    tenant: str
    profile: str
    experiment: str
    """name/arm, or ""."""
    streamed: bool


class Feed:
    """Costs nothing while nobody watches."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()

    @property
    def watched(self) -> bool:
        """Somebody watches."""
        return bool(self._viewers)

    def tell(self, shown: Shown, traces: Iterable[Trace]) -> None:
        """One answer with each of its texts."""
        at = time.time()
        for trace in traces:
            for viewer in self._viewers:
                viewer.tell(at, shown, trace)

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """Sees what comes from now on. Raises RateLimited when too many watch already."""
        if len(self._viewers) >= VIEWERS:
            raise RateLimited(f"{VIEWERS} viewers watch this feed already.", wait_s=10)
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def stop(self) -> None:
        """Whoever watches has seen the end: a server that stops would wait for them."""
        for viewer in self._viewers:
            viewer.end()


class Viewer:
    """One who watches, and what waits to be read."""

    def __init__(self) -> None:
        self._news: deque[tuple[float, Shown, Trace]] = deque()
        self._left_out = 0
        self._ended = False
        self._some = asyncio.Event()

    def tell(self, at: float, shown: Shown, trace: Trace) -> None:
        """Never waits: of a viewer that does not read, the oldest news are dropped."""
        if len(self._news) >= WAITING:
            self._news.popleft()
            self._left_out += 1
        self._news.append((at, shown, trace))
        self._some.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._some.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """Server-sent events `answer`, several in one piece, and `missed` with how many were left out; a comment now and then keeps the
        connection.

        Ends after `LASTS_S`.
        """
        ends = time.monotonic() + LASTS_S
        yield b": the feed begins\n\n"
        while not self._ended and time.monotonic() < ends:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._some.wait()
            except TimeoutError:
                yield sse.KEEP_ALIVE
                continue
            self._some.clear()
            if self._left_out:
                missed, self._left_out = self._left_out, 0
                yield sse.frame({"count": missed}, name="missed")
            if self._news:
                news, self._news = self._news, deque()
                yield b"".join(sse.frame(_news(*each), name="answer") for each in news)
            await asyncio.sleep(PAUSE_S)


def _news(at: float, shown: Shown, trace: Trace) -> Json:
    told = trace.to_dict()
    kept: Json = {name: told[name] for name in _TOLD if name in told}
    return {
        "at": round(at, 3),
        "request_id": shown.request_id,
        "tenant": shown.tenant,
        "profile": shown.profile,
        "experiment": shown.experiment,
        "streamed": shown.streamed,
        "rewrite_ms": round(sum(trace.timings_ms.values()), 1),
        **kept,
    }
