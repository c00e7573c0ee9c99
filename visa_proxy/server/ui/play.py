"""One question of the playground: the base's answer as it comes, and beside it what a client would get instead.

It runs through `generate`, as a client's request does: with a profile that no policy has, and with an ear at both ends of the rewriting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any, Final

import orjson

from visa_proxy.errors import NotReady, RateLimited, UpstreamError, VisaError, error_body
from visa_proxy.llm import sse
from visa_proxy.server.call import Call
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.generate import CHAT, generate
from visa_proxy.server.plan import Plan
from visa_proxy.server.surfaces.base import Json, Request
from visa_proxy.server.types import Message
from visa_proxy.server.ui.changes import changes
from visa_proxy.server.ui.sketch import Question, profile_of, tenant_of

logger = logging.getLogger("visa_proxy.requests")

AT_ONCE: Final = 4
"""Questions being answered at the same time, of one process."""
TOTAL_S: Final = 120.0
"""For one question, where the tenant's own limit is not less."""
MAX_ANSWER: Final = 200_000
"""Characters of the base's answer: a page cannot show more."""

Event = tuple[str, Json]


class Playground:
    """Asks on behalf of a tenant, whose limits and key it does not need: whoever may see the page runs the proxy."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._slots = asyncio.Semaphore(AT_ONCE)

    def ask(self, question: Question) -> AsyncIterator[bytes]:
        """Server-sent events: `base` and `rewritten` with text, then `visa`, `changes` and `end`; or `error`, at any time.

        Raises VisaError when there is nothing to begin with.
        """
        gateway = self._gateway
        shield = gateway.components.shield
        if shield is None:
            raise NotReady(f"nothing can be rewritten: the components are {gateway.components.state}")
        if self._slots.locked():
            raise RateLimited(f"{AT_ONCE} questions are being answered already.")
        tenant = tenant_of(gateway.watcher.current, question.tenant)
        profile = profile_of(question, shield.detector.space)
        data: Json = {"messages": [{"role": "user", "content": question.question}], "stream": True}
        if question.model:
            data["model"] = question.model
        request = Request.parse(CHAT, orjson.dumps(data))
        ears = _Ears()
        instructions = () if profile.instruction is None else (profile.instruction,)
        plan = Plan(tenant, profile, instructions, replace(request, suffix=None), amend=ears.base)
        return self._frames(plan, ears)

    async def _frames(self, plan: Plan, ears: _Ears) -> AsyncIterator[bytes]:
        async with self._slots:
            asking = asyncio.get_running_loop().create_task(self._asking(plan, ears))
            try:
                while (event := await ears.next()) is not None:
                    yield sse.frame(event[1], name=event[0])
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _asking(self, plan: Plan, ears: _Ears) -> None:
        try:
            async with asyncio.timeout(min(TOTAL_S, plan.tenant.limits.total_s)):
                await generate(_call(ears), self._gateway, plan)
            if ears.whole:
                found = await asyncio.to_thread(changes, *ears.texts, plan.tenant.shield)
                if found is not None:
                    ears.say("changes", asdict(found))
        except VisaError as error:
            ears.say("error", error_body(error)["error"])
        except TimeoutError:
            ears.say("error", {"message": f"the answer took longer than {TOTAL_S:g} s"})
        except Exception as error:
            # The message of a foreign exception may quote a text.
            logger.error("playground failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            ears.say("error", {"message": "The server had an error while answering."})
        finally:
            ears.say("end", {})
            ears.close()


class _Ears:
    """Hears the base through the plan, and what a client would be sent as an ASGI server does."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        """Bounded by what the base may say."""
        self._base: list[str] = []
        self._rewritten: list[str] = []
        self._heard = 0
        self.whole = False
        """The client's answer has ended as it should."""
        self._status = 0
        self._rest = b""

    @property
    def texts(self) -> tuple[str, str]:
        """The base's answer and the client's."""
        return "".join(self._base), "".join(self._rewritten)

    async def next(self) -> Event | None:
        """None: that was all."""
        return await self._events.get()

    def say(self, name: str, data: Json) -> None:
        self._events.put_nowait((name, data))

    def close(self) -> None:
        self._events.put_nowait(None)

    def base(self, event: Json) -> None:
        """An event of the base, before anything is done to it; see Plan.amend. Raises UpstreamError for an endless answer."""
        text = _content(event)
        self._heard += len(text)
        if self._heard > MAX_ANSWER:
            raise UpstreamError(f"the answer has more than {MAX_ANSWER} characters", code="upstream_too_large")
        if text:
            self._base.append(text)
            self.say("base", {"text": text})

    async def client(self, message: Message) -> None:
        """What a client is sent."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._rest += message.get("body", b"")
        if self._status >= 400:
            if not message.get("more_body"):
                self._take(orjson.loads(self._rest))
            return
        *frames, self._rest = self._rest.split(b"\n\n")
        for frame in frames:
            if frame.startswith(b"data: {"):
                self._take(orjson.loads(frame.removeprefix(b"data: ")))

    def _take(self, event: Json) -> None:
        if "error" in event:
            self.say("error", event["error"])
            return
        if text := _content(event):
            self._rewritten.append(text)
            self.say("rewritten", {"text": text})
        if "visa" in event:
            self.whole = True
            self.say("visa", event["visa"])


def _content(event: Json) -> str:
    """The text of the only choice; "" for what is no text."""
    found: Any = [(choice.get("delta") or {}).get("content") for choice in event.get("choices") or ()]
    return "".join(text for text in found if isinstance(text, str))


def _call(ears: _Ears) -> Call:
    """A request that came from nowhere: nothing of the browser's goes to the base."""
    headers = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
    scope = {"method": "POST", "path": f"/v1{CHAT.path}", "query_string": b"", "headers": headers}
    return Call(scope, _nothing_comes, ears.client)


async def _nothing_comes() -> Message:
    raise AssertionError("the request is whole")
