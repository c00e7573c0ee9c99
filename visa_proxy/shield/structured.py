"""Answers that are JSON: the string fields that a policy names are rewritten, every other byte stays."""

from __future__ import annotations

import asyncio
from typing import Any

from visa_proxy.errors import RewriteRefused
from visa_proxy.shield.answer import gathered, rewrite_whole
from visa_proxy.shield.json_fields import find_fields, fitting, splice
from visa_proxy.shield.pipeline import Adaptation, Brief, Shield
from visa_proxy.shield.trace import Trace, merged


async def adapt_fields(
    shield: Shield, brief: Brief, text: str, *, slots: asyncio.Semaphore, schema: dict[str, Any] | None
) -> Adaptation:
    """`text` with those of `settings.json_fields` rewritten that could be verified and with which it still fits `schema`.

    `slots`: for fields that are rewritten at the same time.
    Raises RewriteRefused under `on_failure: error` when one of them could not.
    """
    fields = find_fields(text, brief.settings.json_fields)
    if not fields:
        return Adaptation(text, Trace(status="skipped:json"))
    results = await gathered(rewrite_whole(shield, brief, field.value, slots) for field in fields)
    wanted = {f: r.text for f, r in zip(fields, results, strict=True) if r.trace.status == "adapted"}
    kept = await asyncio.to_thread(fitting, text, wanted, schema)  # the schema is the client's: it may take its time
    for field, result in zip(fields, results, strict=True):
        if field in wanted and field not in kept:
            if brief.settings.on_failure == "error":
                raise RewriteRefused("no verified rewrite: it does not fit the schema of the request")
            result.trace.status, result.trace.after = "fallback:schema", None
    traces = [result.trace for result in results]
    return Adaptation(splice(text, kept), traces[0] if len(traces) == 1 else merged(traces))
