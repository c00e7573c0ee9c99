"""One text of a streamed answer as a gateway's guardrail hook tells of it: again and again, each time with all there is so far.

What is said of it must go on from what was said before: the gateway has sent that. So the text is cut into windows once, and everything
behind the windows that are released is held back.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from typing import Final

from visa_proxy.server.plan import Plan
from visa_proxy.shield.answer import AT_ONCE, PIECE, Part, complete
from visa_proxy.shield.pipeline import Shield
from visa_proxy.shield.trace import Trace
from visa_proxy.shield.windows import GOALS

_END: Final = re.compile(r"""[.!?…。！？]["'”’»)\]*_`]*\s*\Z""")


def may_end(text: str) -> bool:
    """Whether an answer may end like this: with a sentence, or an emoji behind one."""
    last = text.rstrip()[-1:]
    return bool(_END.search(text)) or (bool(last) and unicodedata.category(last) == "So")


@dataclass(frozen=True)
class Said:
    """What is said of one text this time."""

    text: str
    held: int
    """Characters at its end that are not to be sent unless it is the end."""
    trace: Trace


class Draft:
    """One text that grows."""

    def __init__(self, plan: Plan, shield: Shield, place: int) -> None:
        self.plan = plan
        self.told = ""
        self._shield = shield
        self._place = place
        self._answer = plan.open(shield, (place,), windows=True) if plan.stream_mode == "window" else None
        self._waiting: deque[Part] = deque()
        self._released = 0
        """Characters of `told` whose windows were released."""
        self.last: Said | None = None
        """What was said of `told` as a whole, where it may have been the end."""

    async def say(self, text: str, ends: bool | None) -> Said:
        """`text` begins with what was told before; `ends`: whether it is all, None: nobody knows.

        Raises RewriteRefused under `on_failure: error`.
        """
        same = text == self.told
        if ends is None:
            ends = same or may_end(text) or (not self.told and len(text) >= GOALS[0])
        if same and self.last is not None and ends:
            return self.last
        added, self.told, self.last = text[len(self.told) :], text, None
        said = await (self._whole(text, ends) if self._answer is None else self._windows(added, ends))
        if ends:
            self.last = said
        return said

    @property
    def trace(self) -> Trace:
        """What happened to it so far."""
        if self.last is not None:
            return self.last.trace
        return Trace(status="skipped:open") if self._answer is None else self._answer.so_far

    async def stop(self) -> None:
        """Nothing is left running."""
        if self._answer is not None:
            await self._answer.stop()

    async def _whole(self, text: str, ends: bool) -> Said:
        if not ends:
            return Said(text, len(text), self.trace)
        found = await complete(self.plan.open(self._shield, (self._place,), windows=False), text)
        return Said(found.text, len(found.text), found.trace)

    async def _windows(self, added: str, ends: bool) -> Said:
        answer = self._answer
        assert answer is not None, "only where the policy says windows"
        for at in range(0, len(added), PIECE):
            self._waiting += answer.feed(added[at : at + PIECE])
            if at:
                await asyncio.sleep(0)  # a megabyte may come at once: others have their turn
        # Waiting for the oldest when many are under way slows the base down, and windows leave before it has ended.
        while self._waiting and (self._waiting[0].work.done() or len(self._waiting) > AT_ONCE):
            self._released += self._waiting[0].size
            await answer.release(self._waiting.popleft())
        sent = answer.text
        if not ends:
            rest = self.told[self._released :]
            return Said(sent + rest, len(rest), answer.so_far)
        ahead = answer.fork()
        try:
            for part in [*self._waiting, *ahead.end()]:
                await ahead.release(part)
        finally:
            await ahead.stop()
        return Said(ahead.text, len(ahead.text) - len(sent), ahead.so_far)
