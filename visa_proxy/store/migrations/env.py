"""Alembic's entry: runs migrations in the transaction that `visa_proxy.store.migrate` has begun."""

from alembic import context

from visa_proxy.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
