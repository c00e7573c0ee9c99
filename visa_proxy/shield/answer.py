"""One answer on its way through the shield: cut into windows, rewritten at once, released in order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from visa_proxy.rewriter.base import Context
from visa_proxy.shield.pipeline import MAX_QUERY, Adaptation, Aim, Brief, Shield
from visa_proxy.shield.trace import Trace, merged
from visa_proxy.shield.windows import MAX_WHOLE, Cutter, Splitter, Whole, Window, looks_like_json

AT_ONCE: Final = 4
"""Windows of one answer being rewritten at the same time."""
TAIL: Final = 300
"""Characters of what was sent that the rewriter is shown."""
OUTLINE: Final = 12
"""Earlier windows that the rewriter is told of."""
HEADLINE: Final = 80
"""Characters told of each of them."""


Rewrite = Callable[[str], Awaitable[Adaptation]]


@dataclass(frozen=True)
class Part:
    """A window that has been closed; its rewrite is under way."""

    work: asyncio.Future[Adaptation]
    verbatim: bool
    size: int
    """Characters of the base's text."""


class Answer:
    """Feed it the base's text, await its parts in order, then ask what happened.

    What `release` gives for all parts, joined, is the base's text with the windows that could be verified rewritten.
    """

    def __init__(self, shield: Shield, brief: Brief, *, windows: bool = False, rewrite: Rewrite | None = None) -> None:
        """`windows`: close windows while the text comes; else it is rewritten at its end, as a whole where the rewriter takes it.

        `rewrite`: what becomes of the text, always as a whole; default: `shield.adapt`.
        """
        self._shield = shield
        self._brief = brief
        self._hurried = windows
        self._rewrite = rewrite
        verbatim = "code" in brief.settings.preserve
        reach = MAX_WHOLE if rewrite is not None else shield.rewriter.reach
        self._cutter: Splitter = Cutter(verbatim=verbatim) if windows else Whole(reach, verbatim=verbatim)
        self._aim: Aim = shield.aim(brief)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[Adaptation]] = set()
        self._outline: deque[str] = deque(maxlen=OUTLINE)
        self._base: list[str] = []
        self._sent: list[str] = []
        self._tail = ""
        self._traces: list[Trace] = []
        self._whole = True
        """No part was verbatim: code and the like are no windows."""

    def feed(self, text: str) -> list[Part]:
        """The windows that this piece of the base's text closes."""
        self._base.append(text)
        return [self._start(window) for window in self._cutter.feed(text)]

    def end(self) -> list[Part]:
        """The rest, as windows; the answer may go on after that."""
        return [self._start(window) for window in self._cutter.end()]

    async def release(self, part: Part) -> str:
        """What the client gets for `part`; call in order. Raises RewriteRefused under `on_failure: error`."""
        adaptation = await part.work
        self._sent.append(adaptation.text)
        self._tail = (self._tail + adaptation.text)[-TAIL:]
        self._whole = self._whole and not part.verbatim
        if not part.verbatim:
            self._traces.append(adaptation.trace)
        return adaptation.text

    @property
    def base(self) -> str:
        """What the base model said so far."""
        return "".join(self._base)

    @property
    def text(self) -> str:
        """What was released so far."""
        return "".join(self._sent)

    async def report(self) -> Trace:
        """What happened to the whole of it, measured on the whole where it came in several windows."""
        base = self.base
        if not self._traces:
            return Trace(status=_nothing_to_rewrite(base))
        if len(self._traces) == 1 and self._whole:
            whole = self._traces[0]
        else:
            whole = merged(self._traces)
            whole.windows = dict(Counter(trace.status for trace in self._traces))
            measured = any(trace.before is not None for trace in self._traces)
            if measured and len(base) <= MAX_WHOLE:
                with whole.stage("report"):
                    await self._measure(whole, base)
        return whole

    async def stop(self) -> None:
        """Ends what is still under way; nothing is left running after this."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _measure(self, whole: Trace, base: str) -> None:
        detector, query = self._shield.detector, self._brief.query[:MAX_QUERY]
        whole.before = await detector.detect(query, base)
        whole.target = (await self._aim.settle(base, whole)).resolve(whole.before)
        if whole.status == "adapted":
            whole.after = await detector.detect(query, self.text)

    def _start(self, window: Window) -> Part:
        loop = asyncio.get_running_loop()
        if window.verbatim:
            done: asyncio.Future[Adaptation] = loop.create_future()
            done.set_result(Adaptation(window.text, Trace(status="skipped:verbatim")))
            return Part(done, True, len(window.text))
        task = loop.create_task(self._adapt(window.text, "\n".join(self._outline)))
        self._running.add(task)
        task.add_done_callback(self._ended)
        self._outline.append(f"- {' '.join(window.text.split())[:HEADLINE]}")
        return Part(task, False, len(window.text))

    def _ended(self, task: asyncio.Task[Adaptation]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever awaits the part raises it; nobody may, when the client has gone

    async def _adapt(self, text: str, outline: str) -> Adaptation:
        async with self._slots:
            if self._rewrite is not None:
                return await self._rewrite(text)
            context = Context(outline, self._tail)
            return await self._shield.adapt(self._brief, text, aim=self._aim, context=context, hurried=self._hurried)


async def complete(answer: Answer, text: str) -> Adaptation:
    """All of `answer`, whose base text is `text`. Raises RewriteRefused under `on_failure: error`."""
    answer.feed(text)
    try:
        for part in answer.end():
            await answer.release(part)
        return Adaptation(answer.text, await answer.report())
    finally:
        await answer.stop()


async def rewrite_whole(shield: Shield, brief: Brief, text: str) -> Adaptation:
    """A verified rewrite of a whole text, or the text itself with the reason. Raises RewriteRefused under `on_failure: error`."""
    return await complete(Answer(shield, brief), text)


def _nothing_to_rewrite(text: str) -> str:
    if looks_like_json(text):
        return "skipped:json"
    return "skipped:verbatim" if text.strip() else "skipped:empty"
