"""Numbers of a report as text; "–" for what is not known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from visa_proxy.experiments.estimates import Interval, Quantile
from visa_proxy.experiments.metrics import Metric

NOTHING: Final = "–"


def number(value: float | None, metric: Metric, *, signed: bool = False) -> str:
    """In the unit of the metric; of a difference of shares, percentage points."""
    if value is None:
        return NOTHING
    sign = "+" if signed else ""
    if metric.unit == "%":
        return f"{value * 100:{sign}.1f} {'points' if signed else '%'}"
    return f"{value:{sign}.3f}{' s' if metric.unit == 's' else ''}"


def size(value: float | None, metric: Metric) -> str:
    """How large a difference is, whichever way it goes."""
    return number(value, metric, signed=True).lstrip("+")


def interval(found: Interval | None, metric: Metric, *, signed: bool = False) -> str:
    """Both ends."""
    if found is None:
        return NOTHING
    low = number(found.low, metric, signed=signed).rsplit(" ", 1)[0] if metric.unit else number(found.low, metric, signed=signed)
    return f"{low} … {number(found.high, metric, signed=signed)}"


def with_interval(value: float | None, found: Interval | None, metric: Metric) -> str:
    """A figure, and its interval where it has one."""
    return number(value, metric) + (f" ({interval(found, metric)})" if found is not None else "")


def seconds(found: Quantile) -> str:
    """A quantile of latencies."""
    if found.value is None:
        return NOTHING
    return f"{found.value:.3f} s" + (f" ({found.interval.low:.3f} … {found.interval.high:.3f} s)" if found.interval else "")


def percent(value: float | None) -> str:
    """A relative lift."""
    return NOTHING if value is None else f"{value * 100:+.1f} %"


def percents(found: Interval | None) -> str:
    """The interval of a relative lift."""
    return NOTHING if found is None else f"{found.low * 100:+.1f} … {found.high * 100:+.1f} %"


def chance(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return NOTHING
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def count(value: int | None) -> str:
    """A number of units."""
    return NOTHING if value is None else f"{value:,}".replace(",", " ")


def time(at: float | None) -> str:
    """Seconds since 1970, to the minute."""
    return NOTHING if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
