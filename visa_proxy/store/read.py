"""Reading a store, for reports and for the page. It writes nothing, and keeps nobody from writing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.store.address import Address
from visa_proxy.store.load import check_store
from visa_proxy.store.rows import Exposure, Feedback, Measured

if TYPE_CHECKING:
    import sqlalchemy as sa

MAX_ROWS: Final = 1_000_000
"""Of one call, whatever it asks for."""


class Reader:
    """Blocking, for one thread at a time. Every method raises ConfigError when the store cannot be read."""

    def __init__(self, url: str) -> None:
        """Connects when first asked. Raises ConfigError for a wrong URL, MissingExtra."""
        check_store(url)
        from visa_proxy.store.engine import open_engine

        self._address = Address.parse(url)
        self._engine = open_engine(self._address, reads=True)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connection; asked again, it makes a new one."""
        self._engine.dispose()

    def experiments(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """(tenant, experiment) of everything that was exposed in an experiment, in order."""
        import sqlalchemy as sa

        from visa_proxy.store.tables import EXPOSURES as E

        asked = sa.select(E.c.tenant, E.c.experiment).where(E.c.experiment != sa.literal_column("''")).distinct()
        if tenant is not None:
            asked = asked.where(E.c.tenant == tenant)
        rows = self._read(asked.order_by(E.c.tenant, E.c.experiment))
        return [(row.tenant, row.experiment) for row in rows]

    def exposures(
        self,
        tenant: str,
        *,
        experiment: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
        texts: bool = False,
    ) -> list[Measured]:
        """The newest `limit` (default and most: MAX_ROWS) of a tenant, the oldest of them first, each with its feedback.

        `since` ≤ time < `until`, in seconds since 1970. `texts`: with those that are still kept. Of an id that was used again only
        the newest is there; in experiments that holds of what is stored, elsewhere older ones count towards `limit`.
        """
        import sqlalchemy as sa

        from visa_proxy.store.tables import EXPOSURES as E
        from visa_proxy.store.tables import FEEDBACK as F
        from visa_proxy.store.tables import TEXTS as T

        said = [F.c[name].label(f"said_{name}") for name in ("at", "score", "thumbs", "label")]
        # The time of a comment may be over, and nobody has come to delete it yet.
        held = sa.and_(F.c.comment_until > time.time(), sa.literal(texts))
        comment = sa.case((held, F.c.comment), else_=None).label("said_comment")
        held_texts = (T.c.query, T.c.answer, T.c.rewrite) if texts else ()
        joined = E.outerjoin(F, sa.and_(F.c.tenant == E.c.tenant, F.c.request_id == E.c.request_id))
        if texts:
            joined = joined.outerjoin(
                T, sa.and_(T.c.tenant == E.c.tenant, T.c.request_id == E.c.request_id, T.c.until > time.time())
            )
        asked = sa.select(*E.columns, *said, comment, *held_texts).select_from(joined).where(E.c.tenant == tenant)
        if experiment is not None:
            # Said twice, so that the index of experiments is seen to hold all of them.
            asked = asked.where(E.c.experiment == experiment, E.c.experiment != sa.literal_column("''"))
        if since is not None:
            asked = asked.where(E.c.at >= since)
        if until is not None:
            asked = asked.where(E.c.at < until)
        most = MAX_ROWS if limit is None else max(0, min(limit, MAX_ROWS))
        rows = self._read(asked.order_by(E.c.at.desc()).limit(most))
        newest: dict[str, Any] = {}
        for row in rows:
            newest.setdefault(row.request_id, row)
        return [_measured(row._mapping) for row in reversed(newest.values())]

    def _read(self, asked: sa.Select[Any]) -> list[Any]:
        import sqlalchemy as sa

        try:
            with self._engine.begin() as connection:
                return list(connection.execute(asked))
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self._engine.dispose()
            cause = getattr(error, "orig", None) or error
            raise ConfigError([f"store: cannot be read: {type(cause).__name__}: {self._address.hide(str(cause))}"]) from None


def _measured(row: Any) -> Measured:
    exposure = Exposure(
        **{name: row[name] for name in _COLUMNS}, **{name: row[name] for name in ("query", "answer", "rewrite") if name in row}
    )
    if row["said_at"] is None:
        return Measured(exposure)
    said = {name: row[f"said_{name}"] for name in ("at", "score", "thumbs", "label", "comment")}
    return Measured(exposure, Feedback(exposure.tenant, exposure.request_id, **said))


_COLUMNS: Final = (
    *(
        "request_id",
        "at",
        "tenant",
        "profile",
        "status",
        "latency_s",
        "experiment",
        "arm",
        "unit_hash",
        "before",
        "after",
        "target",
    ),
    *("similarity_before", "similarity_after", "consistency", "rewrite_s", "streamed", "surface"),
)
