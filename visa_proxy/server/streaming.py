"""Rewriting a stream while it streams: read ahead, rewrite at once, release in order.

A reader takes the base's events and puts what they hold on a lane: windows whose rewrites are under way, and everything else in its
place between them. The writer takes them off in order. The lane is bounded, so a slow client slows the base down.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from visa_proxy.errors import UpstreamError
from visa_proxy.llm import sse
from visa_proxy.llm.base import MAX_ANSWER_BYTES, Exchange
from visa_proxy.server.call import Call, HeaderList
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import End, Json, Key, Raw, Text, garbled
from visa_proxy.shield.answer import PIECE, Answer, Part
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace

KEEP_ALIVE_S: Final = 5.0
LANE_BYTES: Final = 128 * 1024
"""Of text and events between the base and the client, before the base has to wait."""
EVENT_BYTES: Final = 200
"""What an event weighs on the lane beside its text: roughly its envelope."""
_DONE: Final = "[DONE]"

T = TypeVar("T")


@dataclass(frozen=True)
class _Said:
    """A window of one of the answer's texts."""

    answer: Answer
    part: Part
    text: Text


class _Lane:
    """A queue between one reader and one writer, bounded by weight."""

    def __init__(self) -> None:
        self._items: deque[tuple[Raw | _Said, int]] = deque()
        self._weight = 0
        self._space = asyncio.Event()
        self._filled = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    async def put(self, item: Raw | _Said, weight: int) -> None:
        """Waits while the lane is full."""
        while self._weight >= LANE_BYTES:
            self._space.clear()
            await self._space.wait()
        self._items.append((item, weight))
        self._weight += weight
        self._filled.set()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come; `error`: why, for the writer, once it has taken what there is."""
        self._closed, self._error = True, error
        self._filled.set()

    @property
    def waiting(self) -> bool:
        """There is nothing to take yet."""
        return not self._items and not self._closed

    async def filled(self) -> None:
        """Until there is something to take."""
        while self.waiting:
            self._filled.clear()
            await self._filled.wait()

    def take(self) -> Raw | _Said | None:
        """The next item; None at the end. Raises what the lane was closed with."""
        if not self._items:
            if self._error is not None:
                raise self._error
            return None
        item, weight = self._items.popleft()
        self._weight -= weight
        self._space.set()
        return item


class _Texts(Mapping[Key, str]):
    """What was sent of each text so far; joined only where an event asks for it."""

    def __init__(self, answers: dict[Key, Answer]) -> None:
        self._answers = answers

    def __getitem__(self, key: Key) -> str:
        return self._answers[key].text

    def __iter__(self) -> Iterator[Key]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)


async def stream(call: Call, gateway: Gateway, shield: Shield, plan: Plan, base: Exchange, headers: HeaderList) -> None:
    """Answer with the base's stream, rewritten. Raises VisaError, before the answer has begun or after."""
    pump = _Pump(call, gateway, plan, base, shield)
    try:
        await pump.run([(b"content-type", sse.MEDIA_TYPE), (b"cache-control", b"no-cache"), *headers])
    finally:
        await pump.close()


class _Pump:
    """One streamed answer."""

    def __init__(self, call: Call, gateway: Gateway, plan: Plan, base: Exchange, shield: Shield) -> None:
        self._call = call
        self._gateway = gateway
        self._plan = plan
        self._base = base
        self._shield = shield
        self._decoder = plan.request.surface.decoder()
        call.error_frame = self._decoder.failure
        self._lane = _Lane()
        self._answers: dict[Key, Answer] = {}
        self._last: dict[Key, Text] = {}
        self._done = self._decoder.says_done
        self._spoken = False
        self._reader = asyncio.get_running_loop().create_task(self._read())
        self._reader.add_done_callback(self._ended)

    async def run(self, headers: HeaderList) -> None:
        """The whole answer."""
        # An error that comes at once is still an HTTP error.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._lane.filled()
        late = self._lane.waiting
        first = None if late else self._lane.take()
        self._call.visa[b"x-visa-stream-mode"] = self._plan.stream_mode
        await self._call.start(self._base.status, headers)
        if late:
            await self._call.write(sse.KEEP_ALIVE)
        held: Raw | None = None
        item = first or await self._next()
        while item is not None:
            if held is not None:
                await self._send(self._settle(held.event))
                held = None
            if isinstance(item, _Said):
                await self._release(item)
            elif item.last:
                held = item
            else:
                await self._send(self._settle(item.event))
            item = await self._next()
        await self._conclude(held)

    async def close(self) -> None:
        """Nothing of this answer is left running."""
        self._reader.cancel()
        await asyncio.gather(self._reader, *(answer.stop() for answer in self._answers.values()), return_exceptions=True)

    # The reader.

    def _ended(self, reader: asyncio.Task[None]) -> None:
        self._lane.close(None if reader.cancelled() else reader.exception())

    async def _read(self) -> None:
        """Raises UpstreamError for a stream that is garbled, carries an error, grows beyond 16 MiB, or breaks off."""
        size = 0
        chunks = self._base.chunks(self._plan.tenant.limits.idle_s)
        async for data in sse.events(chunks, max_bytes=MAX_ANSWER_BYTES):
            if data.startswith(_DONE):
                self._done = True
                if not size or not (self._decoder.finished or self._decoder.says_done):
                    raise garbled("stream broke off")
                break
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise UpstreamError(f"the base model's answer exceeds {MAX_ANSWER_BYTES} bytes", code="upstream_too_large")
            if data.strip():
                await self._take(data)
            if self._decoder.finished and not self._decoder.says_done:
                break  # its last event is the end, whatever follows
        else:
            # Some servers leave [DONE] out; then everything that began must have said that it is finished.
            if not self._decoder.finished:
                raise garbled("stream broke off")
        for key in list(self._answers):
            await self._end(key)

    async def _take(self, data: str) -> None:
        try:
            event = orjson.loads(data)
            failure = self._base.endpoint.reported(event)
            if failure is not None:
                raise failure
            self._plan.amend(event)
            steps = self._decoder.read(event)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise garbled("stream is garbled") from error
        for step in steps:
            if isinstance(step, Text):
                await self._say(step)
            elif isinstance(step, End):
                await self._end(step.key)
            else:
                await self._lane.put(step, len(data))

    async def _say(self, text: Text) -> None:
        answer = self._answers.get(text.key)
        if answer is None:
            windows = self._plan.stream_mode == "window"
            answer = self._answers[text.key] = self._plan.open(self._shield, text.key, windows=windows)
        self._last[text.key] = text
        for at in range(0, len(text.text), PIECE):
            await self._put(answer, answer.feed(text.text[at : at + PIECE]), text)
            if at:
                await asyncio.sleep(0)  # a base may send a megabyte at once: others have their turn

    async def _end(self, key: Key) -> None:
        if key in self._answers:
            answer = self._answers[key]
            await self._put(answer, answer.end(), self._last[key])

    async def _put(self, answer: Answer, parts: list[Part], text: Text) -> None:
        for part in parts:
            await self._lane.put(_Said(answer, part, text), part.size + EVENT_BYTES)

    # The writer.

    async def _next(self) -> Raw | _Said | None:
        if self._lane.waiting:
            await self._patiently(self._lane.filled())
        return self._lane.take()

    async def _release(self, said: _Said) -> None:
        work = said.part.work
        if not work.done():
            await self._patiently(asyncio.wait({work}))
        rewritten = await said.answer.release(said.part)
        if rewritten and said.text.template is not None:
            await self._send(self._decoder.speak(said.text, rewritten))
            if not self._spoken:
                self._spoken = True
                self._gateway.metrics.first_token(time.perf_counter() - self._plan.started)

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits; an SSE comment every few seconds keeps the connection alive meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=KEEP_ALIVE_S))[0]:
                await self._call.write(sse.KEEP_ALIVE)
            return task.result()
        finally:
            task.cancel()

    async def _send(self, event: Json) -> None:
        try:
            frame = self._decoder.frame(event)
        except orjson.JSONEncodeError as error:
            raise garbled("stream is nested too deeply") from error
        await self._call.write(frame)

    def _settle(self, event: Json) -> Json:
        """An event without text of its own, as it leaves. Raises UpstreamError when it is garbled."""
        try:
            return self._decoder.settle(event, _Texts(self._answers))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise garbled("stream is garbled") from error

    async def _conclude(self, held: Raw | None) -> None:
        traces: dict[Key, Trace] = {}
        for key, answer in self._answers.items():
            traces[key] = await self._patiently(answer.report())
        for key, why in self._decoder.silent().items():
            if key not in traces or (traces[key].status == "skipped:empty" and why != "skipped:empty"):
                traces[key] = Trace(status=why)
        kept = self._answers if self._plan.tenant.store.text else {}
        texts = {key: (answer.base, answer.text) for key, answer in kept.items()}
        visa = self._gateway.report(self._call, self._plan, traces, texts)
        last = self._decoder.conclude(None if held is None else self._settle(held.event), visa)
        if last is not None:
            self._plan.remember(last)
            await self._send(last)
        await self._call.write(sse.DONE if self._done else b"", more=False)
