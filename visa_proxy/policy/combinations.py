"""Settings that are right each by itself and cannot be honoured together."""

from __future__ import annotations

from collections.abc import Iterator

from visa_proxy.policy.document import Document, KeyPath
from visa_proxy.policy.layers import unshareable
from visa_proxy.policy.schema import PolicyFile


def contradictions(document: Document, file: PolicyFile) -> list[str]:
    """Problem lines of a file that is valid key by key. Only what the file says is held against it, never a default."""
    found = [*_late_errors(file), *_long_waits(file), *unshareable(file)]
    return [document.problem(key, message) for key, message in found]


def _late_errors(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    if file.shield.streaming == "window" and file.shield.on_failure == "error":
        yield (
            ("shield", "on_failure"),
            "error with streaming window: the windows that already left cannot be called back; "
            "allowed: streaming full with on_failure error, or on_failure original",
        )


def _long_waits(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Waits that the limit for the whole request always cuts short."""
    total = file.limits.total_s
    waits: list[tuple[KeyPath, float, bool]] = [
        (("limits", key), getattr(file.limits, key), key in file.limits.model_fields_set) for key in ("upload_s", "idle_s")
    ]
    waits.append((("shield", "timeout_s"), file.shield.timeout_s, "timeout_s" in file.shield.model_fields_set))
    for key, seconds, said in waits:
        if said and seconds > total:
            yield key, f"found {seconds:g}, but limits.total_s ends the whole request after {total:g} s; allowed: at most that"
