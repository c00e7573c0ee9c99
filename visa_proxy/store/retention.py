"""Forgetting: texts go when their time is over, or when the policy in force keeps them no longer. Numbers stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import sqlalchemy as sa

from visa_proxy.store.tables import FEEDBACK, TEXTS

BATCH: Final = 500
"""Texts in one transaction: others that write wait for that long only."""


def sweep(connection: sa.Connection, retention: Mapping[str, float], now: float) -> int:
    """Deletes at most `BATCH` texts, or comments of feedback; how many, 0 when none is left to delete.

    Each text goes at the end that was set when it was written; `retention`, the seconds by tenant now, may only bring that forward.
    """
    for over in _over(TEXTS.c.tenant, TEXTS.c.at, TEXTS.c.until, retention, now):
        some = sa.select(TEXTS.c.tenant, TEXTS.c.request_id).where(over).limit(BATCH)
        found = connection.execute(sa.delete(TEXTS).where(sa.tuple_(TEXTS.c.tenant, TEXTS.c.request_id).in_(some))).rowcount
        if found:
            return found
    key = sa.tuple_(FEEDBACK.c.tenant, FEEDBACK.c.request_id)
    said = FEEDBACK.c.comment_until.is_not(None)
    for over in _over(FEEDBACK.c.tenant, FEEDBACK.c.at, FEEDBACK.c.comment_until, retention, now):
        some = sa.select(FEEDBACK.c.tenant, FEEDBACK.c.request_id).where(said, over).limit(BATCH)
        found = connection.execute(sa.update(FEEDBACK).where(key.in_(some)).values(comment=None, comment_until=None)).rowcount
        if found:
            return found
    return 0


def _over(
    tenant: sa.Column[str], at: sa.Column[float], until: sa.Column[float], retention: Mapping[str, float], now: float
) -> Iterator[sa.ColumnElement[bool]]:
    yield until <= now
    for name, seconds in retention.items():
        yield sa.and_(tenant == name, at <= now - seconds)
