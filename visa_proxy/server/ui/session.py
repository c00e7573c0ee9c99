"""Who has logged in: a signed cookie, which any worker or replica with the same admin key can check."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from visa_proxy.errors import RateLimited

COOKIE: Final = "visa_ui"
LASTS_S: Final = 12 * 3600
"""From login to the next one."""
TRIES: Final = 10
"""Wrong keys that one address may present a minute."""
ADDRESSES: Final = 1024
"""Remembered for that."""
_WINDOW_S: Final = 60.0


def same(given: str, key: str) -> bool:
    """Whether two keys are equal, in a time that depends on neither."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest(), hashlib.sha256(key.encode()).digest()
    )


class Sessions:
    """Cookies of one admin key: another key ends them all."""

    def __init__(self, admin_key: str, clock: Callable[[], float] = time.time) -> None:
        self._secret = hmac.digest(admin_key.encode(), b"visa-proxy ui session 1", "sha256")
        self._clock = clock

    def new(self) -> str:
        """The cookie's value: when it ends (seconds since 1970), a number used once, and the signature of both."""
        said = f"{int(self._clock()) + LASTS_S}.{secrets.token_hex(8)}"
        return f"{said}.{self._signature(said)}"

    def valid(self, cookie: str) -> bool:
        """Whether it is one of ours and has not ended."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._signature(said).encode()):
            return False
        return int(said.partition(".")[0]) > self._clock()

    def _signature(self, said: str) -> str:
        return hmac.new(self._secret, said.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class Attempts:
    """Wrong keys by address: guessing is slow, and costs nobody but the guesser."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises RateLimited when this address has presented too many wrong keys lately."""
        failed = self._failed.get(address, deque())
        while failed and failed[0] < self._clock() - _WINDOW_S:
            failed.popleft()
        if len(failed) >= TRIES:
            wait_s = failed[0] + _WINDOW_S - self._clock()
            raise RateLimited("Too many wrong keys from this address.", wait_s=max(1.0, wait_s))

    def failed(self, address: str) -> None:
        """One more wrong key."""
        self._failed.setdefault(address, deque(maxlen=TRIES)).append(self._clock())
        self._failed.move_to_end(address)
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)
