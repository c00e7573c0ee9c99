"""SQL that writes: one statement for many rows, so that a batch costs the event loop's thread next to nothing."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from visa_proxy.store.base import MAX_TEXT
from visa_proxy.store.rows import Exposure, Feedback, Kept, Unmeasured
from visa_proxy.store.tables import EXPOSURES, FEEDBACK, TRIED

Row = tuple[Any, ...]
"""In the order of its table's columns; of those that are null at its end, any number may be left out."""
CHUNKS: Final = (128, 32, 8, 1)
"""Rows of one statement on SQLite: few sizes, so that it is compiled once. It takes 32 766 parameters."""
KEY: Final = ("tenant", "request_id")
_COLUMNS: Final = [str(column.name) for column in EXPOSURES.columns]
_VALUES: Final = operator.attrgetter(*_COLUMNS)
assert (*_COLUMNS[: len(Unmeasured._fields)],) == Unmeasured._fields and _COLUMNS[-3:] == ["before", "after", "target"]


def exposure_row(exposure: Kept) -> Row:
    """What the table has of it."""
    if isinstance(exposure, Unmeasured):
        return exposure
    vectors = (exposure.before, exposure.after, exposure.target)
    return _row([*_VALUES(exposure)[:-3], *(None if values is None else orjson.dumps(values).decode() for values in vectors)])


def text_row(exposure: Exposure, keep_s: float) -> Row | None:
    """None where there is no text, or none to be kept."""
    texts = (exposure.query, exposure.answer, exposure.rewrite)
    if keep_s <= 0 or not any(texts):
        return None
    kept = (None if text is None else clean(text)[:MAX_TEXT] for text in texts)
    return _row([exposure.tenant, exposure.request_id, exposure.at, exposure.at + keep_s, *kept])


def _row(values: list[Any]) -> Row:
    while values[-1] is None:
        values.pop()
    return tuple(values)


def feedback_values(feedback: Feedback, keep_s: float) -> dict[str, Any]:
    """By column."""
    comment = None if feedback.comment is None or keep_s <= 0 else clean(feedback.comment)[:MAX_TEXT]
    return {
        "tenant": feedback.tenant,
        "request_id": feedback.request_id,
        "at": feedback.at,
        "score": feedback.score,
        "thumbs": feedback.thumbs,
        "label": None if feedback.label is None else clean(feedback.label),
        "comment": comment,
        "comment_until": None if comment is None else feedback.at + keep_s,
    }


def clean(text: str) -> str:
    """What both databases can hold: no NUL, and no half of a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def write_rows(connection: sa.Connection, table: sa.Table, listed: list[Row]) -> None:
    """Inserts rows, or replaces older ones of the same key where the table has one; no two of `listed` then have the same."""
    if connection.dialect.name == "postgresql":
        if listed:
            connection.execute(_from_json(table), {"rows": _as_json(table, listed)})
        return
    for width in {len(row) for row in listed}:
        alike = [row for row in listed if len(row) == width]
        done = 0
        for size in CHUNKS:
            while len(alike) - done >= size:
                some = alike[done : done + size]
                connection.exec_driver_sql(_marked(table, width, size), tuple(itertools.chain.from_iterable(some)))
                done += size


def write_feedback(connection: sa.Connection, values: dict[str, Any]) -> bool:
    """False when the same is there already, whenever it was said."""
    return connection.execute(_said(connection.dialect.name), values, execution_options={"preserve_rowcount": True}).rowcount == 1


@functools.cache
def _marked(table: sa.Table, width: int, size: int) -> str:
    """For SQLite, compiled for the driver: its marks take a tuple, and no parameter is looked at one by one. `width`: columns."""
    insert = sqlite.insert(table).values([{column.name: None for column in table.columns[:width]}] * size)
    return str(_replacing(insert, table).compile(dialect=sqlite.dialect(paramstyle="qmark")))


@functools.cache
def _from_json(table: sa.Table) -> Any:
    """For Postgres, with all rows in one parameter: to hand over thousands costs five times as much."""
    given = sa.func.json_to_recordset(sa.cast(sa.bindparam("rows", type_=sa.Text), postgresql.JSON))
    columns = [sa.column(column.name, column.type) for column in table.columns]
    rows = given.table_valued(*columns).render_derived(with_types=True)
    insert = postgresql.insert(table).from_select([column.name for column in table.columns], sa.select(*rows.columns))
    return _replacing(insert, table)


def _as_json(table: sa.Table, rows: list[Row]) -> str:
    names = [str(column.name) for column in table.columns]  # exactly str, which orjson insists on
    json = {column.name for column in table.columns if isinstance(column.type, sa.JSON)}
    objects = [
        {
            name: orjson.Fragment(value) if value is not None and name in json else value
            for name, value in zip(names, row, strict=False)
        }
        for row in rows
    ]
    return orjson.dumps(objects).decode()


def _replacing(insert: Any, table: sa.Table) -> Any:
    new = insert.excluded
    rest = {column.name: new[column.name] for column in table.columns if column.name not in KEY}
    some = TRIED if table is EXPOSURES else None
    return insert.on_conflict_do_update(index_elements=KEY, index_where=some, set_=rest, where=new.at >= table.c.at)


@functools.cache
def _said(dialect: str) -> Any:
    insert = _insert(FEEDBACK, dialect).values({column.name: sa.bindparam(column.name) for column in FEEDBACK.columns})
    new = insert.excluded
    rest = [column.name for column in FEEDBACK.columns if column.name not in KEY]
    said = [name for name in rest if name not in ("at", "comment_until")]
    changed = sa.or_(*(FEEDBACK.c[name].is_distinct_from(new[name]) for name in said))
    return insert.on_conflict_do_update(index_elements=KEY, set_={name: new[name] for name in rest}, where=changed)


def _insert(table: sa.Table, dialect: str) -> Any:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
