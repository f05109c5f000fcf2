"""Generators of columns of dates, durations and times of day in every container.

The first cell is never missing, as objects without any value are no dates.
"""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
from hostile_cases import TINY, Case
from hostile_dtypes import CONTAINERS as TABLES

from sknas import NASClassifier, NASRegressor

DAY = datetime.datetime(2020, 2, 29, 23, 59)
LONG_AGO, FAR_AHEAD = datetime.datetime(1678, 1, 1), datetime.datetime(2262, 1, 1)


def _dates(rng, n):
    """Draw datetimes that are near each other, equal, far apart, or extreme."""
    scale = rng.choice([0, 1e-6, 1, 3_600, 86_400, 1e7, 1e9])
    cells = [
        DAY + datetime.timedelta(seconds=scale * step) for step in rng.normal(size=n)
    ]
    if rng.random() < 0.2:
        cells[0] = [LONG_AGO, FAR_AHEAD][rng.integers(2)]
    return [min(max(cell, LONG_AGO), FAR_AHEAD) for cell in cells]


def _days(rng, n):
    dates = _dates(rng, n)
    return [datetime.datetime(d.year, d.month, d.day) for d in dates]


def _ancient(rng, n):
    ends = [datetime.datetime.min, datetime.datetime.max, DAY]
    return [ends[position] for position in rng.integers(0, 3, n)]


def _spans(rng, n):
    return [(cell - DAY) / 2 for cell in _dates(rng, n)]  # that nanoseconds can count


def _times(rng, n):
    return [cell.time() for cell in _dates(rng, n)]


def _objects(change=lambda cell: cell):
    def wrap(cells):
        column = np.empty(len(cells), dtype=object)
        column[:] = [cell if pd.isna(cell) else change(cell) for cell in cells]
        return pd.Series(column)

    return wrap


def _array(dtype):
    return lambda cells: pd.Series(np.array(cells, dtype=dtype))


def _arrow(dtype):
    return lambda cells: pd.Series(
        pd.arrays.ArrowExtensionArray(pa.array(cells, type=dtype))
    )


def _in_zone(zone, change=lambda column: column):
    def wrap(cells):
        utc = pd.Series(np.array(cells, dtype="M8[us]")).dt.tz_localize("UTC")
        return change(utc.dt.tz_convert(zone))

    return wrap


def _as_stamps(column):
    return _objects()(list(column))


def _arrow_of_zone(zone):
    return lambda column: column.astype(pd.ArrowDtype(pa.timestamp("us", zone)))


# What draws the cells, and the containers whose columns are one kind.
CONTAINERS = {
    "dates": (
        _dates,
        {
            "datetime64[us]": _array("M8[us]"),
            "datetime64[ns]": _array("M8[ns]"),
            "arrow timestamp": _arrow(pa.timestamp("us")),
            "objects": _objects(),
            "stamps": _objects(pd.Timestamp),
            "numpy objects": _objects(np.datetime64),
        },
    ),
    "days": (
        _days,
        {
            "datetime64[s]": _array("M8[s]"),
            "arrow date32": _arrow(pa.date32()),
            "arrow date64": _arrow(pa.date64()),
            "objects": _objects(lambda cell: cell.date()),
            "periods": lambda cells: pd.Series(pd.PeriodIndex(cells, freq="D")),
        },
    ),
    "ancient dates": (
        _ancient,
        {
            "datetime64[us]": _array("M8[us]"),
            "arrow timestamp": _arrow(pa.timestamp("us")),
            "objects": _objects(),
        },
    ),
    "zoned dates": (
        _dates,
        {
            "Tokyo": _in_zone("Asia/Tokyo"),
            "UTC": _in_zone("UTC"),
            "New York, stamps": _in_zone("America/New_York", _as_stamps),
            "arrow, Berlin": _in_zone("UTC", _arrow_of_zone("Europe/Berlin")),
            "offset": _in_zone("+05:30"),
        },
    ),
    "durations": (
        _spans,
        {
            "timedelta64[us]": _array("m8[us]"),
            "timedelta64[ns]": _array("m8[ns]"),
            "arrow duration": _arrow(pa.duration("us")),
            "objects": _objects(),
            "Timedeltas": _objects(pd.Timedelta),
        },
    ),
    "times of day": (
        _times,
        {"objects": _objects(), "arrow time": _arrow(pa.time64("us"))},
    ),
}


def _cells(rng, n, kind, gaps):
    """Draw cells of a kind, None where missing."""
    missing = rng.random(n) < gaps
    missing[0] = False
    drawn = CONTAINERS[kind][0](rng, n)
    return [None if gap else cell for cell, gap in zip(drawn, missing, strict=True)]


def _maker(kind, container, gaps):
    wrap = CONTAINERS[kind][1][container]
    return lambda rng, n: wrap(_cells(rng, n, kind, gaps))


def _makers():
    """Yield names of columns, which begin with their kind, and their makers."""
    for kind, (_, containers) in CONTAINERS.items():
        for container in containers:
            for suffix, gaps in ((" with gaps", 0.3), ("", 0)):
                name = f"{kind} in {container}{suffix}"
                yield name, _maker(kind, container, gaps)


DATES = dict(_makers())


def in_other_containers(rng, tail):
    """Replace columns of dates by others of their kind, in any container."""
    parts = []
    for position, name in enumerate(tail.columns):
        column, kind = tail.iloc[:, position], name.split(": ", 1)[1]
        if kind in DATES:
            kinds = [
                other
                for other in DATES
                if other.split(" in ")[0] == kind.split(" in ")[0]
            ]
            column = DATES[str(rng.choice(kinds))](rng, len(tail)).set_axis(tail.index)
        parts.append(column)
    changed = pd.concat(parts, axis=1)
    changed.columns = tail.columns
    return changed, False


def date_case(seed):
    """Return a valid case with dates, and its rows in other containers."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([4, 12, 40]))
    kinds = [str(kind) for kind in rng.choice(list(CONTAINERS), rng.integers(1, 4))]
    columns = [_cells(rng, n, kind, rng.choice([0, 0.3])) for kind in kinds]
    case = Case(seed, None, None, None, notes=[f"{n} rows"])
    case.X = _table(rng, kinds, columns, case)
    for name in rng.choice(list(TABLES), 2):
        table = _table(rng, kinds, columns, case)
        if not any(isinstance(dtype, pd.PeriodDtype) for dtype in table.dtypes):
            case.notes.append(name)
            table = TABLES[name](table)
        case.alike.append(table)
    is_classifier = rng.random() < 0.5
    case.y = np.arange(n) % 2 if is_classifier else rng.normal(size=n)
    case.estimator = (NASClassifier if is_classifier else NASRegressor)(**TINY)
    return case


def _table(rng, kinds, columns, case):
    """Wrap each column in a container of its kind."""
    chosen = [str(rng.choice(list(CONTAINERS[kind][1]))) for kind in kinds]
    case.notes += [f"{k} in {c}" for k, c in zip(kinds, chosen, strict=True)]
    return pd.DataFrame(
        {
            f"{position}: {kind}": CONTAINERS[kind][1][container](cells)
            for position, (kind, container, cells) in enumerate(
                zip(kinds, chosen, columns, strict=True)
            )
        }
    )
