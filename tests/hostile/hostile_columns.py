"""Generators of unusual columns for tables.

A maker takes (rng, n) and returns a pandas Series of n rows. Columns of `FINE` must be
read; columns of `ODD` may be refused with a documented error.
"""

import datetime
import decimal
import fractions

import numpy as np
import pandas as pd
import pyarrow as pa
from hostile_dates import DATES

WORDS = (
    *("red", "green", "", " ", "nan", "None", "NA", "1", "1.0", "True", "a\x00b"),
    *("é", "e\u0301", "日本", "\U0001f600", "\n", "x" * 5_000, "-0", "inf", "<NA>"),
)
GAPS = (None, np.nan, pd.NA, pd.NaT)
DAY = pd.Timestamp("2020-02-29")


def words(rng, n, k=4):
    return rng.choice(rng.choice(WORDS, k, replace=False), n)


def integers(dtype):
    """Make integers from the smallest to the largest of a dtype."""
    limits = np.iinfo(dtype)

    def make(rng, n):
        ends = rng.integers(limits.min, limits.max, n, dtype=dtype, endpoint=True)
        near = rng.integers(0, 5, n).astype(dtype)
        return pd.Series(ends if rng.random() < 0.5 else near)

    return make


def floats(dtype):
    return lambda rng, n: pd.Series(rng.normal(size=n).astype(dtype))


def scaled(low, high, dtype=np.float64):
    """Make numbers of magnitudes 10**low to 10**high, of both signs."""

    def make(rng, n):
        sizes = 10.0 ** rng.uniform(low, high, n) * rng.choice([-1, 1], n)
        return pd.Series(sizes.astype(dtype))

    return make


def drawn(*values, dtype=None):
    """Draw from a few values; an object column by default."""

    def make(rng, n):
        cells = np.empty(n, dtype=object)
        cells[:] = [values[position] for position in rng.integers(0, len(values), n)]
        return pd.Series(cells, dtype=dtype or object)

    return make


def typed(dtype, *values):
    """Draw values and gaps of a pandas extension dtype."""
    return drawn(*values, None, dtype=dtype)


def with_gaps(make, gap, share=0.3):
    """Set gaps in an object column, or NaN in a column of floats."""

    def make_with_gaps(rng, n):
        column = make(rng, n)
        missing = rng.random(n) < share
        if gap is np.nan and column.dtype.kind == "f":
            return column.mask(missing)
        cells = column.astype(object).to_numpy(copy=True)
        cells[missing] = gap
        return pd.Series(cells, dtype=object)

    return make_with_gaps


def categories(*values, ordered=False, unused=()):
    levels = pd.CategoricalDtype([*values, *unused], ordered=ordered)
    return lambda rng, n: pd.Series(pd.Categorical(rng.choice(values, n), dtype=levels))


def _rare(rng, n):
    column = np.zeros(n)
    column[rng.integers(n)] = rng.choice([1.0, 1e300, 5e-324, -1.0])
    return pd.Series(column)


def _one_known(rng, n):
    column = np.full(n, np.nan)
    column[rng.integers(n)] = 3.0
    return pd.Series(column)


def _neighbours(rng, n):
    """Numbers that differ in their last bit only."""
    start = float(rng.choice([1.0, -1e300, 1e-300, 0.0, 2.0**53]))
    return pd.Series(np.nextafter(start, rng.choice([-np.inf, start, np.inf], n)))


def _extremes(rng, n):
    largest = np.finfo(float).max
    values = [largest, -largest, 5e-324, -5e-324, 0.0, -0.0, 1.0]
    return pd.Series(rng.choice(values, n))


def _category_of(make):
    return lambda rng, n: make(rng, n).astype("category")


def _arrow(name, *values):
    return typed(f"{name}[pyarrow]", *values)


FINE = {
    **{
        name: integers(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
    },
    **{name: floats(name) for name in ("float16", "float32", "float64", "longdouble")},
    "huge": scaled(290, 307),
    "tiny": scaled(-320, -290),
    "all sizes": scaled(-300, 300),
    "huge float32": scaled(30, 38, np.float32),
    "tiny float32": scaled(-44, -30, np.float32),
    "huge float16": scaled(0, 4.8, np.float16),
    "extremes": _extremes,
    "rare": _rare,
    "one known": _one_known,
    "neighbours": _neighbours,
    "constant": lambda rng, n: pd.Series(np.full(n, float(rng.choice([0, 1, 1e300])))),
    "missing": lambda rng, n: pd.Series(np.full(n, np.nan)),
    "signed zeros": drawn(0.0, -0.0, dtype=float),
    "bool": lambda rng, n: pd.Series(rng.random(n) < 0.5),
    "words": lambda rng, n: pd.Series(words(rng, n), dtype=object),
    "str": lambda rng, n: pd.Series(words(rng, n), dtype="str"),
    "string": lambda rng, n: pd.Series(words(rng, n), dtype="string"),
    "each another word": lambda rng, n: pd.Series([f"id{i}" for i in range(n)]),
    "Int64": typed("Int64", 1, 2, -(2**62)),
    "UInt64": typed("UInt64", 1, 2, 2**64 - 1),
    "Float32": typed("Float32", 1.5, -2.0),
    "Float64": typed("Float64", 1.5, 1e300),
    "boolean": typed("boolean", True, False),
    "arrow int64": _arrow("int64", 1, 2),
    "arrow uint8": _arrow("uint8", 1, 255),
    "arrow double": _arrow("double", 1.5, 1e300),
    "arrow float": _arrow("float", 1.5, -2.0),
    "arrow bool": _arrow("bool", True, False),
    "arrow string": _arrow("string", "a", "", "\U0001f600"),
    "category of words": categories("a", "b", "", unused=("c",)),
    "category of ints": categories(1, 2, 30, ordered=True),
    "category of floats": categories(0.5, 1e300),
    "category of bools": categories(True, False),
    "category with gaps": _category_of(with_gaps(drawn("a", "b"), None)),
    "category of dates": _category_of(drawn(DAY, DAY + pd.Timedelta(1, "D"))),
    "category of nothing": _category_of(drawn(None)),
    "sparse": lambda rng, n: pd.Series(
        pd.arrays.SparseArray(rng.choice([0.0, 1.5], n))
    ),
    "objects: ints": drawn(1, 2, 3),
    "objects: floats": drawn(1.5, float("nan"), -2.0),
    "objects: bools": drawn(True, False),
    "objects: numpy scalars": drawn(np.int64(1), np.float32(2.5), np.float64(3)),
    "objects: words and gaps": drawn("a", "b", *GAPS[:3]),
    "objects: gaps": drawn(*GAPS[:3]),
    "objects: words and numbers": drawn("a", 1, 2.5, True),
    "objects: bools and gaps": drawn(True, False, None),
    "objects: NaT": drawn(pd.NaT),
    "objects: numpy dates": drawn(np.datetime64("2020"), np.datetime64("2021-01-01")),
    "months": lambda rng, n: pd.Series(pd.period_range("2020", periods=n, freq="M")),
    "NaN": with_gaps(floats(np.float64), np.nan),
    "None": with_gaps(floats(np.float64), None),
    "NA": with_gaps(floats(np.float64), pd.NA),
    "NaN float32": with_gaps(floats(np.float32), np.nan),
    "mostly NaN": with_gaps(scaled(-300, 300), np.nan, 0.9),
}

NUMBERS = tuple(FINE)[: tuple(FINE).index("bool")]
WORDY = (
    *("words", "str", "string", "each another word", "arrow string"),
    *("category of words", "category of ints", "category with gaps"),
)
# Columns whose content depends on the rows drawn.
BY_LUCK = (
    *("objects: words and gaps", "objects: words and numbers"),
    *("objects: bools and gaps", "objects: gaps"),
)

ODD = {
    "infinite": lambda rng, n: pd.Series(rng.choice([1.0, np.inf, -np.inf, np.nan], n)),
    "infinite float16": lambda rng, n: pd.Series(
        rng.choice([1.0, np.inf], n).astype(np.float16)
    ),
    "beyond doubles": lambda rng, n: pd.Series(
        rng.choice([np.longdouble("1e400"), np.longdouble(1)], n)
    ),
    "complex": lambda rng, n: pd.Series(rng.normal(size=n) + 1j),
    "intervals": lambda rng, n: pd.Series(pd.interval_range(0, n)),
    "category of intervals": lambda rng, n: pd.Series(
        pd.cut(rng.normal(size=n), [-9, 0, 9])
    ),
    "arrow decimals": drawn(
        decimal.Decimal("1.50"), dtype=pd.ArrowDtype(pa.decimal128(9, 2))
    ),
    "arrow binary": _arrow("binary", b"a", b"\xff"),
    "arrow null": typed("null[pyarrow]"),
    "arrow lists": drawn([1, 2], None, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    "objects: dates and gaps": drawn(DAY, datetime.datetime(2020, 1, 1), None),
    "objects: dates with and without a zone": drawn(DAY, DAY.tz_localize("UTC")),
    "objects: dates of several zones": drawn(
        DAY.tz_localize("UTC"), DAY.tz_localize("Asia/Tokyo")
    ),
    "objects: dates and durations": drawn(DAY, pd.Timedelta(1)),
    "objects: dates and words": drawn(DAY, "a"),
    "objects: decimals": drawn(decimal.Decimal("1.5"), decimal.Decimal("NaN")),
    "objects: decimal signals": drawn(decimal.Decimal("sNaN"), decimal.Decimal(1)),
    "objects: fractions": drawn(fractions.Fraction(1, 3), 1),
    "objects: huge ints": drawn(10**400, 1),
    "objects: large ints": drawn(2**64, -(2**70), 1),
    "objects: infinite": drawn(float("inf"), 1),
    "objects: infinite words": drawn(float("inf"), float("-inf"), "a"),
    "objects: complex": drawn(1j, 1),
    "objects: bytes": drawn(b"a", b"\xff", None),
    "objects: bytes and words": drawn(b"a", "a"),
    "objects: lists": drawn([1], [1, 2], []),
    "objects: arrays": drawn(np.ones(2), np.zeros(3)),
    "objects: tuples": drawn((1, 2), (1,)),
    "objects: dicts": drawn({"a": 1}, {}),
    "objects: sets": drawn({1}, frozenset()),
    "objects: types": drawn(int, len, object()),
    "objects: lone surrogates": drawn("\ud800", "a"),
    "objects: frames": drawn(pd.DataFrame({"a": [1]}), pd.Series([1, 2])),
    "words of numbers": drawn("1", "2.5", "1e400"),
}
MAKERS = {**FINE, **DATES, **ODD}
