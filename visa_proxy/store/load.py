"""The store of a config."""

from __future__ import annotations

from pathlib import Path

from visa_proxy.errors import ConfigError
from visa_proxy.optional import installed
from visa_proxy.store.address import Address
from visa_proxy.store.base import Retention, Store, Watch

EXTRA = "store"


def check_store(url: str) -> None:
    """Before anything is started. Raises ConfigError for a wrong URL or a folder that is not there, MissingExtra."""
    address = Address.parse(url)
    for module in ("sqlalchemy", "alembic", *(("psycopg",) if address.kind == "postgresql" else ())):
        installed(module, extra=EXTRA)
    folder = Path(address.place).parent
    if address.kind == "sqlite" and not folder.is_dir():
        raise ConfigError([f"store: there is no folder {folder} to put the file into"])


def load_store(url: str, retention: Retention, watch: Watch) -> Store:
    """Not yet opened. Raises what `check_store` does."""
    check_store(url)
    # Imported here: a proxy without a store has no use for SQLAlchemy.
    from visa_proxy.store.sql import SqlStore

    return SqlStore(Address.parse(url), retention, watch)
