"""What the store holds, as the pages ask for it."""

from __future__ import annotations

from visa_proxy.policy.config import ServerConfig
from visa_proxy.server.ui import trials
from visa_proxy.store.read import Reader
from visa_proxy.store.rows import Measured


class Shelf:
    """Reads what the proxy, its workers and replicas have written. It blocks: not for the event loop.

    A connection for each look: pages are looked at now and then. Every method raises ConfigError when the store cannot be read.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._url = config.store

    @property
    def stored(self) -> bool:
        """There is a store."""
        return self._url is not None

    def exposures(self, tenant: str, *, since: float, limit: int) -> list[Measured]:
        """The newest of a tenant's answers; `since`: seconds since 1970."""
        with self._open() as reader:
            return reader.exposures(tenant, since=since, limit=limit)

    def experiments(self) -> list[tuple[str, str]]:
        """(tenant, experiment) of all that were ever seen."""
        with self._open() as reader:
            return reader.experiments()

    def exposures_of(self, tenant: str, experiment: str) -> list[Measured]:
        """Of one experiment, at most `trials.MOST`, the newest."""
        with self._open() as reader:
            return reader.exposures(tenant, experiment=experiment, limit=trials.MOST)

    def _open(self) -> Reader:
        assert self._url is not None, "there is a store"
        return Reader(self._url)
