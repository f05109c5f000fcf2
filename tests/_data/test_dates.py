"""Columns of dates, durations and times of day."""

import datetime
import zoneinfo
from datetime import time, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sknas._data.dates import DateColumn
from sknas._data.reader import dense_rows
from sknas._data.time_values import kind_of_dates

few = settings(deadline=None, max_examples=20)
ZONES = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/St_Johns")
DAY = datetime.datetime(2024, 2, 29, 13, 30)
# Dates that nanoseconds in 64 bits can count.
STAMPS = st.datetimes(datetime.datetime(1680, 1, 1), datetime.datetime(2260, 1, 1))
SPANS = st.timedeltas(timedelta(days=-90_000), timedelta(days=90_000))


def with_gaps(values):
    return st.lists(st.none() | values, min_size=1, max_size=12)


def objects(values):
    return pd.Series(values, dtype=object)


def from_polars(values, dtype):
    frame = pl.DataFrame({"a": pl.Series(values, dtype=dtype)})
    return dense_rows("NASClassifier", frame)["a"]


def from_arrow(values, dtype):
    return pd.Series(values, dtype=pd.ArrowDtype(dtype))


def array(values, dtype):
    return np.array(values, dtype=dtype)


def containers(values, kind, units):
    """Return datetimes (kind "M") or timedeltas (kind "m") in every container."""
    arrow, polars = {
        "M": (pa.timestamp, pl.Datetime),
        "m": (pa.duration, pl.Duration),
    }[kind]
    wrap = {"M": pd.Timestamp, "m": pd.Timedelta}[kind]
    stamps = [None if value is None else wrap(value) for value in values]
    yield objects(values)
    yield objects(stamps)
    yield objects([pd.NaT if value is None else value for value in values])
    yield np.array([*values, "other"], dtype=object)[:-1]
    for unit in units:
        yield array(values, f"{kind}8[{unit}]")
        yield pd.Series(
            array(values, f"{kind}8[{unit}]"), index=range(3, 3 + len(values))
        )
        yield objects(list(array(values, f"{kind}8[{unit}]")))
        yield from_arrow(array(values, f"{kind}8[{unit}]"), arrow(unit))
        if unit != "s":
            yield from_polars(values, polars(unit))


def assert_all_alike(columns, at_least):
    """Assert that each container is read alike after a fit of any of them."""
    columns = list(columns)
    expected = DateColumn("a").fit(columns[0])
    numbers = expected.read(columns[0])
    for column in columns:
        fitted = DateColumn("a").fit(column)
        assert (fitted.parts_, fitted.zone_) == (expected.parts_, expected.zone_)
        assert_array_equal(fitted.read(columns[-1]), numbers)
        assert_array_equal(expected.read(column), numbers)
    assert len(columns) >= at_least
    return numbers


@few
@given(with_gaps(STAMPS))
def test_dates_of_any_container_are_read_alike(values):
    assert_all_alike(containers(values, "M", ("us", "ns")), 13)


@few
@given(with_gaps(STAMPS), st.sampled_from(["s", "ms"]))
def test_dates_of_coarse_units_are_read_alike(values, unit):
    cut = array(values, f"M8[{unit}]").astype("M8[us]").tolist()
    assert_all_alike(containers(cut, "M", (unit, "us", "ns")), 16)


@few
@given(with_gaps(SPANS))
def test_durations_of_any_container_are_read_alike(values):
    numbers = assert_all_alike(containers(values, "m", ("us", "ns")), 13)
    seconds = [np.nan if v is None else v.total_seconds() for v in values]
    np.testing.assert_allclose(numbers, np.transpose([seconds]), rtol=1e-15)


@few
@given(with_gaps(STAMPS.map(datetime.datetime.date)))
def test_days_of_any_container_are_read_alike(values):
    days = array(values, "M8[D]")
    columns = [
        *(objects(values), days, pd.Series(days), pd.Series(days.astype("M8[ns]"))),
        pd.Series(pd.PeriodIndex(days.astype("M8[s]"), freq="D")),
        from_arrow(values, pa.date32()),
        from_arrow(values, pa.date64()),
        from_polars(values, pl.Date),
        objects([v and datetime.datetime.combine(v, time()) for v in values]),
    ]
    assert_all_alike(columns, 9)


@few
@given(with_gaps(st.times()))
def test_times_of_day_of_any_container_are_read_alike(values):
    columns = [
        *(objects(values), from_arrow(values, pa.time64("us"))),
        from_polars(values, pl.Time),
    ]
    assert_all_alike(columns, 3)


def zoned(values, zone):
    """Return datetimes in UTC as columns of a zone, in every container."""
    utc = pd.Series(array(values, "M8[us]")).dt.tz_localize("UTC")
    here = utc.dt.tz_convert(zone)
    cells = [None if pd.isna(cell) else cell for cell in here]
    yield here
    yield here.astype(pd.DatetimeTZDtype("ns", zone))
    yield objects(cells)
    yield objects([cell and cell.to_pydatetime() for cell in cells])
    yield from_arrow(cells, pa.timestamp("us", zone))
    yield (
        from_polars(values, pl.Datetime("us")).dt.tz_localize("UTC").dt.tz_convert(zone)
    )
    frame = pl.DataFrame({"a": pl.Series(values, dtype=pl.Datetime("us"))})
    frame = frame.select(
        pl.col("a").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    )
    yield dense_rows("NASClassifier", frame)["a"]


@few
@given(st.lists(STAMPS, min_size=1, max_size=8), *[st.sampled_from(ZONES)] * 2)
def test_an_instant_is_read_alike_in_any_zone(values, zone, other):
    fitted = DateColumn("a").fit(next(zoned(values, zone)))
    expected = assert_all_alike(zoned(values, zone), 7)
    for column in zoned(values, other):
        assert_array_equal(fitted.read(column), expected)
    assert fitted.zone_ == zone


@few
@given(st.lists(STAMPS, min_size=2, max_size=8), st.sampled_from(ZONES))
def test_parts_are_those_of_the_local_clock(values, zone):
    here = next(zoned(values, zone))
    zoned_numbers = DateColumn("a").fit(here).read(here)
    clock = here.dt.tz_localize(None)
    numbers = DateColumn("a").fit(clock).read(clock)
    assert_array_equal(zoned_numbers[:, 1:], numbers[:, 1:])
    utc = np.array([v.replace(tzinfo=datetime.UTC).timestamp() for v in values])
    np.testing.assert_allclose(zoned_numbers[:, 0], utc, rtol=1e-15, atol=1e-6)


def circle(value, period):
    angle = 2 * np.pi * value / period
    return [np.sin(angle), np.cos(angle)]


@few
@given(st.lists(st.datetimes(), min_size=2, max_size=8, unique=True))
def test_parts_are_those_of_python(values):
    """Of all years from 1 to 9999."""
    column = objects(values)
    fitted = DateColumn("a").fit(column)
    parts = {
        "year": [[v.year] for v in values],
        "month": [circle(v.month - 1, 12) for v in values],
        "day": [circle(v.day - 1, 31) for v in values],
        "weekday": [circle(v.weekday(), 7) for v in values],
        "time": [
            circle(3600 * v.hour + 60 * v.minute + v.second, 86400) for v in values
        ],
    }
    varying = {
        name: part for name, part in parts.items() if part != part[:1] * len(part)
    }
    assert fitted.parts_ == list(varying)
    expected = np.hstack([np.empty((len(values), 0)), *varying.values()])
    np.testing.assert_allclose(fitted.read(column)[:, 1:], expected, atol=1e-11)


def test_a_date_is_read_as_these_numbers():
    when = pd.Series(
        np.array(["1970-01-01", "NaT", "1971-07-02T12:00:00.500"], "M8[ms]")
    )
    fitted = DateColumn("a").fit(when)
    first, gap, last = fitted.read(when)
    assert fitted.parts_ == ["year", "month", "day", "weekday", "time"]
    assert np.isnan(gap).all()
    assert first[:6].tolist() == [0, 1970, 0, 1, 0, 1]
    assert last[:4].tolist() == [47_304_000.5, 1971, 0, -1]
    np.testing.assert_allclose(last[4:8], [*circle(1, 31), *circle(4, 7)], atol=1e-11)
    assert (first[8:].tolist(), last[8:].tolist()) == ([0, 1], [0, -1])


@pytest.mark.parametrize(
    ("column", "parts"),
    [
        (objects([DAY, None, DAY]), []),
        (objects([DAY, DAY + timedelta(minutes=1)]), ["time"]),
        (objects([DAY, DAY + timedelta(milliseconds=1)]), []),
        (objects([DAY, DAY.replace(year=2052)]), ["year"]),
        (objects([DAY.date(), DAY.date() - timedelta(7)]), ["day"]),
        (objects([pd.NaT, None, np.nan]), []),
        (pd.Series([pd.NaT] * 3), []),
        (
            pd.period_range("2020-01", periods=3, freq="M").to_series(),
            ["month", "weekday"],
        ),
        (objects([time(1), time(1, 0, 1)]), ["time"]),
        (objects([timedelta(1), timedelta(900)]), []),
    ],
)
def test_only_parts_that_vary_are_read(column, parts):
    fitted = DateColumn("a").fit(column)
    assert fitted.parts_ == parts
    assert fitted.read(column).shape == (len(column), fitted.n_parts)
    known = column[column.notna()]
    assert not np.isnan(fitted.read(column)[column.notna()]).any()
    assert_array_equal(fitted.read(known), fitted.read(column)[column.notna()])


@pytest.mark.parametrize(
    "gaps",
    [
        objects([None, None]),
        objects([np.nan, pd.NA]),
        objects([pd.NaT, None]),
        pd.Series([np.nan, np.nan]),
        pd.Series([None, None], dtype="str"),
        pd.Series([None, None], dtype="Int64"),
        pd.Series([None, None], dtype="category"),
        pd.Series([pd.NaT, pd.NaT]),
        pd.Series([pd.NaT, pd.NaT]).dt.tz_localize("UTC"),
        pd.Series([pd.NaT, pd.NaT], dtype="timedelta64[s]"),
        from_arrow([None, None], pa.null()),
        np.array(["NaT", "NaT"], dtype="M8[s]"),
        np.array([np.nan, np.nan]),
    ],
    ids=lambda column: str(column.dtype),
)
@pytest.mark.parametrize(
    "fit", [pd.Series([DAY, None]), pd.Series([timedelta(1)])], ids=str
)
def test_rows_without_any_date_are_gaps(fit, gaps):
    fitted = DateColumn("a").fit(fit)
    assert_array_equal(fitted.read(gaps), np.full((2, fitted.n_parts), np.nan))


DATES = pd.date_range(DAY, periods=3, freq="31h", unit="us").to_series()
IN_TOKYO = DATES.dt.tz_localize("Asia/Tokyo")


@pytest.mark.parametrize(
    ("fit", "new", "message"),
    [
        (
            DATES,
            ["2020-01-01"],
            "hold dates as it did in fit, got (object|str): convert ",
        ),
        (
            DATES,
            [1.5, 2],
            r"hold dates .*, got float64: convert it with pandas.to_datetime",
        ),
        (DATES, [True], "hold dates as it did in fit, got bool"),
        (DATES, [timedelta(1)], "hold dates as it did in fit, got durations"),
        (DATES, [time(1)], "hold dates as it did in fit, got times of day"),
        (DATES, objects([DAY, "a"]), "hold dates as it did in fit, got object"),
        (DATES, objects([DAY, 3]), "hold dates as it did in fit, got object"),
        (
            DATES,
            objects([DAY, timedelta(1)]),
            "hold dates as it did in fit, got object",
        ),
        (
            DATES - DATES.iloc[0],
            [1],
            r"hold durations .*: convert it with pandas.to_timed",
        ),
        (
            objects([time(1)]),
            DATES,
            r"hold times of day .*: convert its cells to datetime",
        ),
        (
            DATES,
            IN_TOKYO,
            "has the time zone 'Asia/Tokyo', but had none in fit: remove ",
        ),
        (
            IN_TOKYO,
            DATES,
            "has no time zone, but had 'Asia/Tokyo' in fit: give it its ",
        ),
        (
            IN_TOKYO,
            objects([DAY.date()]),
            "has no time zone, but had 'Asia/Tokyo' in fit",
        ),
        (
            IN_TOKYO,
            objects([DAY, *IN_TOKYO]),
            "mixes dates with and without a time zone",
        ),
    ],
)
def test_what_cannot_be_matched_to_fit_is_refused_by_name(fit, new, message):
    fitted = DateColumn("when").fit(fit)
    with pytest.raises(ValueError, match=f"Column 'when' of X .*{message}"):
        fitted.read(new if hasattr(new, "dtype") else pd.Series(new))


class OddZone(datetime.tzinfo):
    def utcoffset(self, when):
        return None if when is None else timedelta(hours=1)

    def dst(self, when):
        return timedelta(0)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            objects([DAY, *IN_TOKYO]),
            "mixes dates with and without a time zone: give all",
        ),
        (
            array([10**15], "M8[D]"),
            "can't be read as dates: they are too far from 1970",
        ),
        (
            array([10**12, 0], "M8[Y]"),
            "can't be read as dates: they are too far from 1970",
        ),
        (array([10**17], "m8[D]"), "can't be read as durations: they are too far from"),
        (array([1], "m8[Y]"), "can't be read as durations: "),
        (objects([time(1, tzinfo=datetime.UTC)]), "times with a time zone need a date"),
        (
            objects([DAY.replace(tzinfo=OddZone())]),
            "the time zone .* has no known name",
        ),
    ],
)
def test_dates_that_cannot_be_read_are_refused_by_name(column, message):
    with pytest.raises(ValueError, match=f"^Column 'when' of X .*{message}.*\\.$"):
        DateColumn("when").fit(column)


def test_dates_of_several_zones_are_read_in_utc():
    hours = [timezone(timedelta(hours=h)) for h in (1, 2)]
    column = objects([DAY.replace(tzinfo=tz) for tz in (*hours, datetime.UTC)])
    fitted = DateColumn("a").fit(column)
    utc = pd.Series(pd.to_datetime(column, utc=True))
    assert fitted.zone_ == "UTC"
    assert_array_equal(fitted.read(column), DateColumn("a").fit(utc).read(utc))


@pytest.mark.parametrize("tz", [timezone(timedelta(hours=-3, minutes=-30)), "-03:30"])
def test_a_zone_may_be_an_offset(tz):
    column = DATES.dt.tz_localize(tz)
    fitted = DateColumn("a").fit(column)
    assert fitted.zone_ == "UTC-03:30"
    arrow = column.astype(pd.ArrowDtype(pa.timestamp("us", "-03:30")))
    assert_array_equal(fitted.read(arrow), fitted.read(column))
    assert DateColumn("a").fit(arrow).zone_ == fitted.zone_


def test_summer_time_does_not_change_the_zone():
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    column = objects([DAY.replace(month=m, tzinfo=berlin) for m in (1, 7)])
    fitted = DateColumn("a").fit(column)
    assert (fitted.zone_, fitted.parts_) == ("Europe/Berlin", ["month"])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["2020-01-01", "2020-01-02"], None),
        (pd.Series(["2020-01-01"], dtype="category"), None),
        (DATES.astype("category"), None),
        (objects([DAY, "a"]), None),
        (objects([DAY, timedelta(1)]), None),
        (objects([None]), None),
        (
            objects([np.datetime64("2020"), pd.Timestamp(DAY), None, pd.NaT, pd.NA]),
            "dates",
        ),
        (objects([DAY.date(), DAY, pd.Timestamp(DAY)]), "dates"),
        (objects([pd.Period("2020-01", "M"), pd.Period("2020-01-01", "D")]), "dates"),
        (pd.Series(pd.arrays.SparseArray(DATES)), "dates"),
        (objects([np.timedelta64(1, "s"), timedelta(1)]), "durations"),
        (objects([pd.NaT, time(1)]), "times of day"),
    ],
)
def test_dates_are_recognized_by_dtype_or_cells(column, kind):
    assert (
        kind_of_dates(column if hasattr(column, "dtype") else pd.Series(column)) == kind
    )


def test_nanoseconds_of_durations_are_kept():
    column = np.array([1, 250], dtype="m8[ns]")
    assert DateColumn("a").fit(column).read(column).tolist() == [[1e-9], [2.5e-7]]
