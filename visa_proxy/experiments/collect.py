"""The rows of an experiment out of a store, page by page, without what the statistics do not look at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Final

from visa_proxy.errors import RequestError
from visa_proxy.store.read import Reader
from visa_proxy.store.rows import Measured

PAGE: Final = 20_000
MAX_ROWS: Final = 1_000_000
"""Of one report: about a kilobyte of memory each."""


def collect(
    reader: Reader,
    tenant: str,
    experiment: str,
    *,
    since: float | None = None,
    until: float | None = None,
    read: Callable[[int], None] | None = None,
) -> list[Measured]:
    """The exposures with `since` ≤ time < `until`, seconds since 1970, the newest first; `read` hears how many there are so far.

    Raises RequestError when there are more than MAX_ROWS, ConfigError when the store cannot be read.
    """
    rows: list[Measured] = []
    end = until
    while True:
        page = reader.exposures(tenant, experiment=experiment, since=since, until=end, limit=PAGE)
        if len(page) < PAGE:
            return rows + [_slim(row) for row in reversed(page)]
        # Of the moment at which the page was cut off there may be more: all of it goes to the next page.
        cut = page[0].exposure.at
        whole = [row for row in page if row.exposure.at > cut]
        if not whole:
            raise RequestError(f"more than {PAGE:,} requests of the experiment {experiment!r} have the same time")
        rows += [_slim(row) for row in reversed(whole)]
        if read is not None:
            read(len(rows))
        if len(rows) > MAX_ROWS:
            raise RequestError(
                f"the experiment {experiment!r} has more than {MAX_ROWS:,} requests; give --since, --until or both"
            )
        end = math.nextafter(cut, math.inf)


def _slim(row: Measured) -> Measured:
    """Without value vectors, which are most of a row."""
    return dataclasses.replace(row, exposure=dataclasses.replace(row.exposure, before=None, after=None, target=None))
