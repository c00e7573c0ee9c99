"""Connections: SQLite as a file that several processes write, Postgres as libpq finds it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.store.address import Address

BUSY_S: Final = 2.0
"""How long SQLite waits for another process that writes; it writes again later."""
CONNECT_S: Final = 3
STATEMENT_S: Final = 10
"""For one statement on Postgres."""
READ_S: Final = 60
"""For one statement of a reader."""


def open_engine(address: Address, *, reads: bool = False) -> sa.Engine:
    """An engine with one connection, made when it is first used. `reads`: it cannot write, and its transactions lock nobody out."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "poolclass": sa.QueuePool, "hide_parameters": True}
    if address.kind == "sqlite":
        engine = sa.create_engine("sqlite://", creator=lambda: _sqlite(address.place, reads=reads), **options)
        # A transaction that will write takes its lock at once: one that reads first could not get it any more.
        begin = "BEGIN" if reads else "BEGIN IMMEDIATE"
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    # psycopg makes the connection: SQLAlchemy never sees the URL, and what libpq understands of it all works.
    return sa.create_engine("postgresql+psycopg://", creator=lambda: _postgres(address.place, reads=reads), **options)


def _sqlite(path: str, *, reads: bool) -> sqlite3.Connection:
    if reads and not Path(path).is_file():
        raise ConfigError([f"store: there is no file {path}"])
    # Texts may be in it: nobody but its owner reads it. The files beside it get the same mode.
    os.close(os.open(path, os.O_RDONLY if reads else os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if reads:
            connection.execute("PRAGMA query_only=ON")
            return connection
        connection.execute("PRAGMA journal_mode=WAL")
        # Every commit reaches the disk before it is acknowledged: it survives a power failure, too.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        # Ids come in no order: their index is touched all over, and read and copied again and again with the default of 2 and 4 MB.
        connection.execute("PRAGMA cache_size=-16384")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        # What retention deletes is overwritten.
        connection.execute("PRAGMA secure_delete=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _postgres(url: str, *, reads: bool) -> Any:
    psycopg = need("psycopg", extra="store")
    # No prepared statements and no start-up options: a connection pooler in between may not take them.
    connection = psycopg.connect(
        url, connect_timeout=CONNECT_S, prepare_threshold=None, application_name="visa-proxy", tcp_user_timeout=STATEMENT_S * 1000
    )
    try:
        seconds = READ_S if reads else STATEMENT_S
        connection.execute(f"SET statement_timeout = '{seconds}s'")
        connection.execute(f"SET lock_timeout = '{CONNECT_S}s'")
        connection.execute(
            "SET default_transaction_read_only = on" if reads else "SET idle_in_transaction_session_timeout = '30s'"
        )
        # Acknowledged means durable, whatever the server's default; one that waits for standbys stays.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection
