"""One answer on its way through the shield: cut into windows, rewritten at once, released in order."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from visa_proxy.rewriter.base import Context
from visa_proxy.shield.pipeline import MAX_QUERY, Adaptation, Aim, Brief, Shield
from visa_proxy.shield.trace import Trace, merged
from visa_proxy.shield.verify import measured
from visa_proxy.shield.windows import MAX_WHOLE, Cutter, Splitter, Whole, Window, looks_like_json

logger = logging.getLogger("visa_proxy.shield")

PIECE: Final = 8 * 1024
"""Characters to feed in one go: more would keep everybody else waiting."""
AT_ONCE: Final = 4
"""Windows of one request's answers being rewritten at the same time."""
TAIL: Final = 300
"""Characters of what was sent that the rewriter is shown."""
OUTLINE: Final = 12
"""Earlier windows that the rewriter is told of."""
HEADLINE: Final = 80
"""Characters told of each of them."""


_HUNG: Final = frozenset(("fallback:timeout", "fallback:rewriter-timeout", "fallback:detector", "fallback:translator"))
"""What one window has waited for in vain, the next would wait for again; an instrument that is down or garbles says so after its own
retry."""

T = TypeVar("T")
Rewrite = Callable[[str], Awaitable[Adaptation]]


@dataclass(frozen=True)
class Piece:
    """A window and what became of it; code and the like, which no rewriter sees, have no trace."""

    text: str
    trace: Trace | None
    base: str


@dataclass(frozen=True)
class Part:
    """What leaves at once: a window, or all of them; the rewriting is under way."""

    work: asyncio.Future[list[Piece]]
    size: int
    """Characters of the base's text."""


class Answer:
    """Feed it the base's text, await its parts in order, then ask what happened.

    What `release` gives for all parts, joined, is the base's text with the windows that could be verified rewritten.
    """

    def __init__(
        self,
        shield: Shield,
        brief: Brief,
        slots: asyncio.Semaphore,
        *,
        windows: bool = False,
        rewrite: Rewrite | None = None,
    ) -> None:
        """`slots`: for what is rewritten at the same time, of this answer and others of the same request.

        `windows`: close windows while the text comes, and release each; else everything is rewritten at the end, as a whole where
        the rewriter takes it, and released at once. `rewrite`: what becomes of the text then; default: `shield.adapt`.
        """
        self._shield = shield
        self._brief = brief
        self._hurried = windows
        self._rewrite = rewrite
        verbatim = "code" in brief.settings.preserve
        reach = MAX_WHOLE if rewrite is not None else shield.rewriter.reach
        self._cutter: Splitter = Cutter(verbatim=verbatim) if windows else Whole(reach, verbatim=verbatim)
        self._aim: Aim = shield.aim(brief)
        self._slots = slots
        self._running: set[asyncio.Task[list[Piece]]] = set()
        self._outline: deque[str] = deque(maxlen=OUTLINE)
        self._base: list[str] = []
        self._sent: list[str] = []
        self._tail = ""
        self._given_up = ""
        """Why no further window is rewritten: each would wait as long in vain."""
        self._traces: list[Trace] = []
        self._whole = True
        """Nothing was verbatim."""

    def feed(self, text: str) -> list[Part]:
        """The windows that this piece of the base's text closes."""
        self._base.append(text)
        return [self._start([window]) for window in self._cutter.feed(text)]

    def end(self) -> list[Part]:
        """The rest; the answer may go on after that."""
        windows = self._cutter.end()
        if self._hurried:
            return [self._start([window]) for window in windows]
        return [self._start(windows)] if windows else []

    def fork(self) -> Answer:
        """A copy to end here and now, while this one goes on: what the copy is given, or releases, is not known to this one."""
        other = copy.copy(self)
        other._cutter = copy.deepcopy(self._cutter)
        other._outline = self._outline.copy()
        other._running = set()
        other._base, other._sent, other._traces = self._base.copy(), self._sent.copy(), self._traces.copy()
        return other

    async def release(self, part: Part) -> str:
        """What the client gets for `part`; call in order. Raises RewriteRefused under `on_failure: error`."""
        return "".join([self._released(piece) for piece in await part.work])

    def _released(self, piece: Piece) -> str:
        text, trace = piece.text, piece.trace
        if trace is not None:
            if self._stops(text, piece.base):
                text, trace.status, trace.after = piece.base, "fallback:unverified-stop", None
            self._traces.append(trace)
        else:
            self._whole = False
        self._sent.append(text)
        self._tail = (self._tail + text)[-TAIL:]
        return text

    def _stops(self, text: str, base: str) -> bool:
        """Whether `text`, behind what was sent, makes a stop sequence of the request that the base's text does not hold."""
        return any(stop in self._tail + text and stop not in self._tail and stop not in base for stop in self._brief.stops)

    @property
    def base(self) -> str:
        """What the base model said so far."""
        return "".join(self._base)

    @property
    def text(self) -> str:
        """What was released so far."""
        return "".join(self._sent)

    @property
    def so_far(self) -> Trace:
        """What happened to what was released; of several windows without the values of the whole."""
        if not self._traces:
            return Trace(status=_nothing_to_rewrite(self.base))
        if len(self._traces) == 1 and self._whole:
            return self._traces[0]
        whole = merged(self._traces)
        whole.windows = dict(Counter(trace.status for trace in self._traces))
        return whole

    async def report(self) -> Trace:
        """What happened to the whole of it, measured on the whole where it came in several windows. Never fails."""
        whole = self.so_far
        if whole.windows is None:
            return whole
        base = self.base
        if len(base) <= MAX_WHOLE and any(trace.before is not None for trace in self._traces):
            try:
                async with asyncio.timeout(self._brief.settings.timeout_s):
                    await self._measure(whole, base)
            except Exception as error:
                logger.error("report failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
        return whole

    async def stop(self) -> None:
        """Ends what is still under way; nothing is left running after this."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _measure(self, whole: Trace, base: str) -> None:
        detector, query = self._shield.detector, self._brief.query[:MAX_QUERY]
        with whole.stage("report"):
            target = await self._aim.settle(base, whole)
            space = target.values.space
            before = measured(await detector.detect(query, base), space)
            adapted = whole.status == "adapted"
            after = measured(await detector.detect(query, self.text), space) if adapted else None
        whole.before, whole.target, whole.after = before, target.resolve(before), after

    def _start(self, windows: list[Window]) -> Part:
        loop = asyncio.get_running_loop()
        size = sum(len(window.text) for window in windows)
        if all(window.verbatim for window in windows):
            done: asyncio.Future[list[Piece]] = loop.create_future()
            done.set_result([Piece(window.text, None, window.text) for window in windows])
            return Part(done, size)
        task = loop.create_task(self._pieces(windows))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return Part(task, size)

    def _ended(self, task: asyncio.Task[list[Piece]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever awaits the part raises it; nobody may, when the client has gone

    async def _pieces(self, windows: list[Window]) -> list[Piece]:
        outlines = []
        for window in windows:
            outlines.append("\n".join(self._outline))
            if not window.verbatim:
                self._outline.append(f"- {' '.join(window.text.split())[:HEADLINE]}")
        return await gathered(self._piece(w, o) for w, o in zip(windows, outlines, strict=True))

    async def _piece(self, window: Window, outline: str) -> Piece:
        if window.verbatim:
            return Piece(window.text, None, window.text)
        adaptation = await self._adapt(window.text, outline)
        return Piece(adaptation.text, adaptation.trace, window.text)

    async def _adapt(self, text: str, outline: str) -> Adaptation:
        if self._rewrite is not None:
            return await self._rewrite(text)
        async with self._slots:
            if self._given_up:
                return Adaptation(text, Trace(status=self._given_up))
            context = Context(outline, self._tail)
            found = await self._shield.adapt(self._brief, text, aim=self._aim, context=context, hurried=self._hurried)
            if found.trace.status in _HUNG and self._brief.settings.on_failure == "original":
                self._given_up = found.trace.status
            return found


async def gathered(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first failure is raised, after everything has ended: nothing is left running behind it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def complete(answer: Answer, text: str) -> Adaptation:
    """All of `answer`, whose base text is `text`. Raises RewriteRefused under `on_failure: error`."""
    answer.feed(text)
    try:
        for part in answer.end():
            await answer.release(part)
        return Adaptation(answer.text, await answer.report())
    finally:
        await answer.stop()


async def rewrite_whole(shield: Shield, brief: Brief, text: str, slots: asyncio.Semaphore | None = None) -> Adaptation:
    """A verified rewrite of a whole text, or the text itself with the reason. Raises RewriteRefused under `on_failure: error`.

    `slots`: see Answer; default: its own.
    """
    return await complete(Answer(shield, brief, slots or asyncio.Semaphore(AT_ONCE)), text)


def _nothing_to_rewrite(text: str) -> str:
    if looks_like_json(text):
        return "skipped:json"
    return "skipped:verbatim" if text.strip() else "skipped:empty"
