"""The schema, brought to what this version needs when a store opens."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

HEAD: Final = "0001"
"""The newest revision of `migrations`."""
_LOCK: Final = 0x76697361
"""Of the Postgres advisory lock: "visa"."""
_VERSION: Final = sa.table("alembic_version", sa.column("version_num"))


def revision(connection: sa.Connection) -> str | None:
    """The revision of the schema; None where there is none yet."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
    return found


def upgrade(engine: sa.Engine) -> None:
    """Runs the migrations that are missing, in one transaction; of several processes that start together one does.

    A schema from a newer version is left as it is: migrations only add, so that replicas of two versions can serve side by side.
    """
    with engine.begin() as connection:
        # On SQLite the transaction itself keeps others out; see `open_engine`.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = revision(connection)
        if found is not None and found >= HEAD:
            return
        # Imported here: most starts find nothing to do.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
