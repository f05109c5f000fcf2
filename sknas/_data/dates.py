"""Columns of dates, durations and times of day, decomposed into numbers."""

from __future__ import annotations

from textwrap import shorten

import numpy as np
import pandas as pd

from sknas._data.columns import MAX_ERROR_CHARS, Column, Values
from sknas._data.time_values import DAY, TimeValues, kind_of_dates, read_time_values

PERIODS = {"month": 12, "day": 31, "weekday": 7, "time": DAY}  # of cyclic parts
ADVICE = {
    "dates": "convert it with pandas.to_datetime",
    "durations": "convert it with pandas.to_timedelta",
    "times of day": "convert its cells to datetime.time",
}


class DateColumn(Column):
    """Reads a column of dates, durations or times of day as numbers.

    Total seconds are always read: of a date since 1970 in UTC, of a time of day since
    midnight. Of the year, and of the sine and cosine of month, day of the month,
    weekday and time of day, those are read that vary in the rows of `fit`. They are
    those of the clock in the time zone of `fit`, whatever zone a column has later.

    Parameters
    ----------
    name : str
        Name of the column, for messages.

    Attributes
    ----------
    kind_ : str
        "dates", "durations" or "times of day".
    zone_ : str or None
        Time zone of the dates, UTC if they are in several.
    parts_ : list of str
        Names of the parts that vary.
    """

    def fit(self, values: Values) -> DateColumn:
        self.kind_ = kind_of_dates(values) or "dates"
        times = self._times(values, self.kind_)
        zones = self._zones(times)
        self.zone_ = zones.pop() if len(zones) == 1 else "UTC" if zones else None
        known = ~times.is_missing
        parts = self._parts(times)
        self.parts_ = [name for name, part in parts.items() if _varies(part[known])]
        return self

    @property
    def n_parts(self) -> int:
        """Number of columns of numbers."""
        return 1 + len(self.parts_) + len(PERIODS.keys() & set(self.parts_))

    def read(self, values: Values) -> np.ndarray:
        """Return numbers (N, n_parts), NaN where the date is missing."""
        if pd.isna(values).all():
            return np.full((len(values), self.n_parts), np.nan)
        times = self._checked(values)
        read = [times.seconds + times.nanos / 1e9]
        for name, part in self._parts(times).items():
            if name in self.parts_ and name in PERIODS:
                angle = 2 * np.pi * part / PERIODS[name]
                # Without rounding, the sine of half a day would not be zero.
                read += [np.sin(angle).round(12), np.cos(angle).round(12)]
            elif name in self.parts_:
                read.append(part)
        numbers = np.stack(read, axis=1).astype(np.float64)  # (N, n_parts)
        numbers[times.is_missing] = np.nan
        return numbers

    def _checked(self, values: Values) -> TimeValues:
        """Read cells of the kind of `fit`, in a time zone if `fit` had one."""
        kind = kind_of_dates(values)
        if kind != self.kind_:
            raise ValueError(
                f"Column {self.name!r} of X must hold {self.kind_} as it did in fit, "
                f"got {kind or values.dtype}: {ADVICE[self.kind_]}."
            )
        times = self._times(values, kind)
        zones = self._zones(times)
        if zones and self.zone_ is None:
            raise ValueError(
                f"Column {self.name!r} of X has the time zone {min(zones)!r}, but had "
                "none in fit: remove it with tz_convert to the zone that fit meant, "
                "then tz_localize(None)."
            )
        if not zones and self.zone_ is not None:
            raise ValueError(
                f"Column {self.name!r} of X has no time zone, but had "
                f"{self.zone_!r} in fit: give it its zone with tz_localize."
            )
        return times

    def _times(self, values: Values, kind: str) -> TimeValues:
        try:
            return read_time_values(values, kind)
        except Exception as error:  # of pandas, NumPy or cells, which are any objects
            message = shorten(str(error), MAX_ERROR_CHARS)
            raise ValueError(
                f"Column {self.name!r} of X can't be read as {kind}: {message}."
            ) from error

    def _zones(self, times: TimeValues) -> set[str]:
        if len(times.zones) > 1 and None in times.zones:
            raise ValueError(
                f"Column {self.name!r} of X mixes {times.kind} with and without a "
                "time zone: give all of them one."
            )
        return {zone for zone in times.zones if zone is not None}

    def _parts(self, times: TimeValues) -> dict[str, np.ndarray]:
        """Return the parts besides total seconds, as integers."""
        if times.kind == "durations":
            return {}
        if times.kind == "times of day":
            return {"time": times.seconds}
        clock = _clock(times.seconds, self.zone_)
        months = clock.astype("datetime64[M]")
        days = clock.astype("datetime64[D]")
        return {
            "year": clock.astype("datetime64[Y]").astype(np.int64) + 1970,
            "month": months.astype(np.int64) % 12,
            "day": (days - months).astype(np.int64),
            "weekday": (days.astype(np.int64) + 3) % 7,  # 1970 began on a Thursday
            "time": clock.astype(np.int64) % DAY,
        }


def _clock(seconds: np.ndarray, zone: str | None) -> np.ndarray:
    """Return what a clock in a time zone shows, as datetime64 in seconds."""
    utc = seconds.astype("datetime64[s]")
    if zone is None:
        return utc
    local = pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(zone)
    return local.tz_localize(None).to_numpy()


def _varies(part: np.ndarray) -> bool:
    return bool((part != part[:1]).any())
