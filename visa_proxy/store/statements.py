"""SQL that writes: one statement for many rows, so that a batch costs the event loop's thread next to nothing."""

from __future__ import annotations

import functools
import operator
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from visa_proxy.store.base import MAX_TEXT
from visa_proxy.store.rows import Exposure, Feedback
from visa_proxy.store.tables import EXPOSURES, FEEDBACK, TRIED

Row = tuple[Any, ...]
CHUNKS: Final = (128, 32, 8, 1)
"""Rows of one statement on SQLite: few sizes, so that it is compiled once. It takes 32 766 parameters."""
KEY: Final = ("tenant", "request_id")
_COLUMNS: Final = operator.attrgetter(*(str(column.name) for column in EXPOSURES.columns))
assert [str(column.name) for column in EXPOSURES.columns][-3:] == ["before", "after", "target"], "see exposure_row"


def exposure_row(exposure: Exposure) -> Row:
    """In the order of the table's columns."""
    row: Row = _COLUMNS(exposure)
    if exposure.before is None and exposure.target is None:
        return row
    vectors = (exposure.before, exposure.after, exposure.target)
    return (*row[:-3], *(None if values is None else orjson.dumps(values).decode() for values in vectors))


def text_row(exposure: Exposure, keep_s: float) -> Row | None:
    """None where there is no text, or none to be kept."""
    texts = (exposure.query, exposure.answer, exposure.rewrite)
    if keep_s <= 0 or not any(texts):
        return None
    kept = (None if text is None else clean(text)[:MAX_TEXT] for text in texts)
    return (exposure.tenant, exposure.request_id, exposure.at, exposure.at + keep_s, *kept)


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
    done = 0
    for size in CHUNKS:
        while len(listed) - done >= size:
            connection.exec_driver_sql(_marked(table, size), tuple(value for row in listed[done : done + size] for value in row))
            done += size


def write_feedback(connection: sa.Connection, values: dict[str, Any]) -> bool:
    """False when the same is there already, whenever it was said."""
    return connection.execute(_said(connection.dialect.name), values, execution_options={"preserve_rowcount": True}).rowcount == 1


@functools.cache
def _marked(table: sa.Table, size: int) -> str:
    """For SQLite, compiled for the driver: its marks take a tuple, and no parameter is looked at one by one."""
    insert = sqlite.insert(table).values([{column.name: None for column in table.columns}] * size)
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
            for name, value in zip(names, row, strict=True)
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
