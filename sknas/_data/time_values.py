"""Cells of dates, durations and times of day of any container as integers."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from sknas._validation import short_repr

SECOND, DAY = np.timedelta64(1, "s"), 24 * 60 * 60
# Names that `pandas.api.types.infer_dtype` gives the cells of an object column.
KIND_OF_CELLS = {
    **dict.fromkeys(("datetime64", "datetime", "date", "period"), "dates"),
    **dict.fromkeys(("timedelta64", "timedelta"), "durations"),
    "time": "times of day",
}
TYPES_OF_CELLS = {
    "dates": (datetime.date, np.datetime64, pd.Period),
    "durations": (datetime.timedelta, np.timedelta64),
    "times of day": (datetime.time,),
}
ALL_TYPES = tuple(type_ for types in TYPES_OF_CELLS.values() for type_ in types)


def kind_of_dates(column: pd.Series | np.ndarray) -> str | None:
    """Return "dates", "durations" or "times of day", None for any other column."""
    dtype = column.dtype
    if isinstance(dtype, pd.PeriodDtype) or dtype.kind == "M":
        return "dates"
    if dtype.kind == "m":
        return "durations"
    if dtype.kind != "O" or isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return None
    inferred = infer_dtype(column, skipna=True)
    if inferred != "mixed":
        return KIND_OF_CELLS.get(inferred)
    cells = np.asarray(column, dtype=object)
    cells = cells[~pd.isna(cells)]
    for kind, types in TYPES_OF_CELLS.items():
        if len(cells) and all(isinstance(cell, types) for cell in cells):
            return kind
    return None


def is_date(cell: Any) -> bool:
    """Return True if a cell is a date, a duration or a time of day."""
    return isinstance(cell, ALL_TYPES)


def date_text(cell: Any) -> str:
    """Return a date, duration or time as text that is the same in every container."""
    try:
        if isinstance(cell, datetime.date | np.datetime64):
            stamp = pd.Timestamp(cell)
            return str(stamp if stamp.tz is None else stamp.tz_convert("UTC"))
        if isinstance(cell, datetime.timedelta | np.timedelta64):
            return str(pd.Timedelta(cell))
    except (ValueError, OverflowError):  # too far from 1970 for pandas
        pass
    return str(cell)


@dataclass(frozen=True)
class TimeValues:
    """Cells of a column as integers, in which dates of any container are equal.

    Parameters
    ----------
    kind : str
        See `DateColumn.kind_`.
    seconds, nanos : ndarray of shape (N,), int64
        Whole seconds, of dates since 1970 in UTC, and nanoseconds from 0 to 1e9; 0
        where missing.
    is_missing : ndarray of shape (N,), bool
        True where the cell is missing.
    zones : set of str or None
        Time zones of the cells, None if a cell has none.
    """

    kind: str
    seconds: np.ndarray
    nanos: np.ndarray
    is_missing: np.ndarray
    zones: set[str | None]


def read_time_values(column: pd.Series | np.ndarray, kind: str) -> TimeValues:
    """Read a column of the given kind of any dtype."""
    dtype = column.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        utc = pd.Series(column).dt.tz_convert(None).to_numpy()
        return _from_array(utc, kind, _zone_name(dtype.tz))
    if isinstance(dtype, pd.ArrowDtype) and dtype.kind in "mM":
        values = pd.Series(column).array.__arrow_array__().to_numpy()
        zone = getattr(dtype.pyarrow_dtype, "tz", None)
        tz = zone and pd.DatetimeTZDtype("ns", zone).tz
        return _from_array(values, kind, tz and _zone_name(tz))
    if isinstance(dtype, pd.PeriodDtype):
        starts = pd.Series(column).dt.start_time
        return _from_array(starts.to_numpy(), kind, None)
    if dtype.kind in "mM":
        return _from_array(np.asarray(column), kind, None)
    return _from_cells(np.asarray(column, dtype=object), kind)


def _from_array(values: np.ndarray, kind: str, zone: str | None) -> TimeValues:
    """Split datetime64, in UTC, or timedelta64 of any unit."""
    is_missing = np.isnat(values)
    epoch = np.datetime64(0, "s") if values.dtype.kind == "M" else 0 * SECOND
    since = values - epoch  # at least as fine as seconds, so it may overflow
    if not ((since + epoch).astype(values.dtype) == values)[~is_missing].all():
        raise ValueError("they are too far from 1970")
    seconds, rest = np.divmod(np.where(is_missing, 0 * SECOND, since), SECOND)
    nanos = rest.astype("timedelta64[ns]").astype(np.int64)
    return TimeValues(kind, seconds, nanos, is_missing, {zone})


def _from_cells(cells: np.ndarray, kind: str) -> TimeValues:
    """Read Python objects, of which NumPy and pandas each know a part."""
    is_missing = pd.isna(cells)
    seconds, nanos = np.zeros((2, len(cells)), dtype=np.int64)
    read = READ_CELL[kind]
    known = cells[~is_missing]
    pairs = np.array([read(cell) for cell in known], dtype=np.int64).reshape(-1, 2)
    seconds[~is_missing], nanos[~is_missing] = pairs.T
    tzs = {id(tz): tz for tz in (getattr(cell, "tzinfo", None) for cell in known)}
    zones = {None if tz is None else _zone_name(tz) for tz in tzs.values()}
    return TimeValues(kind, seconds, nanos, is_missing, zones)


def _read_date(cell: Any) -> tuple[int, int]:
    stamp = cell.start_time if isinstance(cell, pd.Period) else pd.Timestamp(cell)
    seconds = stamp.to_datetime64().astype("datetime64[s]").astype(np.int64)
    return seconds, 1_000 * stamp.microsecond + stamp.nanosecond


def _read_duration(cell: Any) -> tuple[int, int]:
    if isinstance(cell, np.timedelta64):
        cell = pd.Timedelta(cell)
    nanos = cell.nanoseconds if isinstance(cell, pd.Timedelta) else 0
    return DAY * cell.days + cell.seconds, 1_000 * cell.microseconds + nanos


def _read_time(cell: datetime.time) -> tuple[int, int]:
    if cell.tzinfo is not None:
        raise ValueError("times with a time zone need a date")
    seconds = 60 * (60 * cell.hour + cell.minute) + cell.second
    return seconds, 1_000 * cell.microsecond


READ_CELL = {
    "dates": _read_date,
    "durations": _read_duration,
    "times of day": _read_time,
}


def _zone_name(tz: datetime.tzinfo) -> str:
    """Return the name by which pandas finds a time zone.

    A name, unlike a zone, is the same in every library.
    """
    offset = tz.utcoffset(None)
    name = str(tz) if offset is None else str(datetime.timezone(offset))
    try:
        pd.DatetimeTZDtype("ns", name)
    except Exception as error:  # of pytz, zoneinfo or pandas
        raise ValueError(
            f"the time zone {short_repr(tz)} has no known name, convert the dates to "
            "'UTC' or to a zone such as 'Europe/Berlin'"
        ) from error
    return name
