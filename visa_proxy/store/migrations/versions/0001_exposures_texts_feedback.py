"""Exposures, texts, feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "exposures",
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
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("target", sa.JSON),
    )
    op.create_index("exposures_by_time", "exposures", ["tenant", "at"])
    tried = sa.text("experiment <> ''")
    op.create_index(
        "exposures_by_experiment", "exposures", ["tenant", "experiment", "at"], sqlite_where=tried, postgresql_where=tried
    )
    op.create_index(
        "exposures_once", "exposures", ["tenant", "request_id"], unique=True, sqlite_where=tried, postgresql_where=tried
    )
    op.create_table(
        "texts",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("query", sa.Text),
        sa.Column("answer", sa.Text),
        sa.Column("rewrite", sa.Text),
    )
    op.create_index("texts_by_end", "texts", ["until"])
    op.create_index("texts_by_time", "texts", ["tenant", "at"])
    op.create_table(
        "feedback",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("thumbs", sa.Text),
        sa.Column("label", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("comment_until", sa.Double),
    )
    said = sa.text("comment_until IS NOT NULL")
    op.create_index("feedback_by_end", "feedback", ["comment_until"], sqlite_where=said, postgresql_where=said)
