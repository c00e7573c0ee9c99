"""Where a store is: a file, or a server that is never named together with its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from visa_proxy.errors import ConfigError

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")


@dataclass(frozen=True)
class Address:
    """A parsed store URL."""

    kind: Literal["sqlite", "postgresql"]
    place: str = field(repr=False)
    """Path of a file; or the URL for libpq, with its password if any."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ConfigError, without the URL, for anything but sqlite:///path and postgresql://….

        What a URL of Postgres may hold is libpq's business: several hosts, sslmode, target_session_attrs.
        """
        if url.startswith(SQLITE) and url.removeprefix(SQLITE).strip("/ "):
            return cls("sqlite", url.removeprefix(SQLITE))
        if url.startswith(POSTGRES) and url.partition("://")[2]:
            return cls("postgresql", url)
        raise ConfigError(["store: allowed: sqlite:///path/of/a/file.db or postgresql://user@host/database"])

    def hide(self, text: str) -> str:
        """`text` on one line, without what the URL holds of credentials; libpq quotes the URL in some of its messages."""
        text = " ".join(text.replace(self.place, self.kind).split())
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text[:300]

    def _secrets(self) -> list[str]:
        if self.kind == "sqlite":
            return []
        # Not urlsplit(…).password: that one stops at what it takes for the end of the host.
        held = urlsplit(self.place).netloc.rpartition("@")[0].partition(":")[2]
        query = [part.partition("=")[2] for part in urlsplit(self.place).query.split("&") if part.startswith("password=")]
        found = [secret for given in (held, *query) for secret in (given, unquote(given)) if secret]
        return sorted(found, key=len, reverse=True)
