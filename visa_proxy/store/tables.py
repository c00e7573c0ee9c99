"""The tables as they are now; how they came about is in `migrations`. Import this where the extra `store` is known to be there."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()

EXPOSURES: Final = sa.Table(
    "exposures",
    METADATA,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("experiment", sa.Text, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("unit_hash", sa.Text, nullable=False),
    sa.Column("surface", sa.Text, nullable=False),
    sa.Column("streamed", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("latency_s", sa.Double, nullable=False),
    sa.Column("rewrite_s", sa.Double),
    sa.Column("similarity_before", sa.Double),
    sa.Column("similarity_after", sa.Double),
    sa.Column("consistency", sa.Double),
    sa.Column("before", sa.JSON(none_as_null=True)),
    sa.Column("after", sa.JSON(none_as_null=True)),
    sa.Column("target", sa.JSON(none_as_null=True)),
)
"""One row for each answered request; of one id several, where it was used again outside of experiments."""
sa.Index("exposures_by_time", EXPOSURES.c.tenant, EXPOSURES.c.at)
TRIED: Final = EXPOSURES.c.experiment != sa.literal_column("''")
# Partial, so that requests outside of experiments pay nothing for them: ids come in no order, and an index of them costs as much as the row.
sa.Index(
    "exposures_by_experiment",
    EXPOSURES.c.tenant,
    EXPOSURES.c.experiment,
    EXPOSURES.c.at,
    sqlite_where=TRIED,
    postgresql_where=TRIED,
)
sa.Index(
    "exposures_once",
    EXPOSURES.c.tenant,
    EXPOSURES.c.request_id,
    unique=True,
    sqlite_where=TRIED,
    postgresql_where=TRIED,
)
"""In statistics a request counts once."""

TEXTS: Final = sa.Table(
    "texts",
    METADATA,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("query", sa.Text),
    sa.Column("answer", sa.Text),
    sa.Column("rewrite", sa.Text),
)
"""Texts of exposures, where a policy opts in; apart, so that forgetting them touches no other row."""
sa.Index("texts_by_end", TEXTS.c.until)
sa.Index("texts_by_time", TEXTS.c.tenant, TEXTS.c.at)

FEEDBACK: Final = sa.Table(
    "feedback",
    METADATA,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("thumbs", sa.Text),
    sa.Column("label", sa.Text),
    sa.Column("comment", sa.Text),
    sa.Column("comment_until", sa.Double),
)
"""The newest outcome of each request. No foreign key: feedback may come before the exposure is written."""
_SAID = FEEDBACK.c.comment_until.is_not(None)
sa.Index("feedback_by_end", FEEDBACK.c.comment_until, sqlite_where=_SAID, postgresql_where=_SAID)
