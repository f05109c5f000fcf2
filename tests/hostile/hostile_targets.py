"""Targets, weights and groups of all kinds; the unusual ones may be refused.

A maker takes (rng, n) and returns an argument of `fit`.
"""

import decimal

import numpy as np
import pandas as pd
from scipy import sparse


def labels(*values):
    """Make some of the given labels in turn, so that each occurs if n allows it."""

    def make(rng, n):
        cells = np.empty(n, dtype=object)
        cells[:] = [values[index % len(values)] for index in range(n)]
        return np.asarray(rng.permutation(cells).tolist())

    return make


def kept_as(cls, make):
    return lambda rng, n: cls(make(rng, n))


def _objects(*values):
    """Like `labels`, but each cell keeps its type."""

    def make(rng, n):
        cells = np.empty(n, dtype=object)
        cells[:] = [values[index % len(values)] for index in range(n)]
        return rng.permutation(cells)

    return make


def _series(dtype, *values):
    return lambda rng, n: pd.Series(_objects(*values)(rng, n), dtype=dtype)


def _rare_classes(rng, n):
    return np.where(np.arange(n) < max(1, n // 10), np.arange(n) + 5, 0)


def _indicator(k, dtype=int):
    def make(rng, n):
        y = rng.integers(0, 2, (n, k))
        y[:, 0] = np.arange(n) % 2
        return y.astype(dtype)

    return make


def _with(make, value):
    """Replace one cell."""

    def replaced(rng, n):
        y = np.array(make(rng, n), copy=True)
        y = y.astype(object) if value is None else y
        y[rng.integers(n)] = value
        return y

    return replaced


CLASSES_FINE = {
    "ints": labels(0, 1, 2),
    "words": labels("red", "", "\U0001f600"),
    "bools": labels(True, False),
    "negative": labels(-1, -7),
    "whole floats": labels(1.0, -2.0, 1e9),
    "huge ints": labels(2**62, -(2**62), 7),
    "uint64": lambda rng, n: np.array([0, 2**64 - 1] * n, np.uint64)[:n],
    "int8": lambda rng, n: labels(-128, 127)(rng, n).astype(np.int8),
    "float16": lambda rng, n: labels(1.0, 2.0)(rng, n).astype(np.float16),
    "rare": _rare_classes,
    "each another": lambda rng, n: np.arange(n),
    "long words": labels("x" * 3_000, "x" * 3_000 + "y"),
    "list": kept_as(list, labels("a", "b")),
    "tuple": kept_as(tuple, labels(3, 4)),
    "series": kept_as(pd.Series, labels("a", "b")),
    "objects": _objects("a", "b", "c"),
    "objects: ints": _objects(1, 2),
    "objects: bools": _objects(True, False),
    "category": _series(pd.CategoricalDtype(["b", "a", "unused"]), "a", "b"),
    "category of ints": _series(pd.CategoricalDtype([3, 1, 2]), 1, 3),
    "Int64": _series("Int64", 1, 2),
    "boolean": _series("boolean", True, False),
    "string": _series("string", "a", "b"),
    "arrow string": _series("string[pyarrow]", "a", "b"),
    "arrow int64": _series("int64[pyarrow]", 1, 2),
    "arrow bool": _series("bool[pyarrow]", True, False),
    "column": lambda rng, n: labels(1, 2)(rng, n)[:, None],
    "frame": lambda rng, n: pd.DataFrame({"y": labels("a", "b")(rng, n)}),
    "multi-label": _indicator(3),
    "multi-label bools": _indicator(2, bool),
    "multi-label floats": _indicator(2, float),
    "multi-label lists": lambda rng, n: _indicator(2)(rng, n).tolist(),
    "multi-label frame": lambda rng, n: pd.DataFrame(_indicator(2)(rng, n)),
}
CLASSES_ODD = {
    "one class": lambda rng, n: np.zeros(n, dtype=int),
    "continuous": lambda rng, n: rng.normal(size=n),
    "objects: mixed": _objects("a", 1),
    "objects: bools and ints": _objects(True, 2),
    "objects: tuples": _objects((1, 2), (3,)),
    "bytes": labels(b"a", b"b"),
    "NaN": _with(labels(0.0, 1.0), np.nan),
    "None": _with(labels("a", "b"), None),
    "infinite": _with(labels(0.0, 1.0), np.inf),
    "NA": _series("Int64", 1, 2, pd.NA),
    "dates": lambda rng, n: np.array(["2020", "2021"], "datetime64[D]")[
        np.arange(n) % 2
    ],
    "dates of pandas": lambda rng, n: pd.Series(pd.date_range("2020", periods=n)),
    "complex": lambda rng, n: labels(0, 1)(rng, n) + 0j,
    "multi-class columns": lambda rng, n: rng.integers(0, 4, (n, 2)),
    "multi-label, one value": lambda rng, n: np.zeros((n, 2), dtype=int),
    "multi-label of words": lambda rng, n: np.full((n, 2), "a"),
    "multi-label with NaN": lambda rng, n: np.full((n, 2), np.nan),
    "sparse": lambda rng, n: sparse.csr_matrix(_indicator(3)(rng, n)),
    "sets": lambda rng, n: [{index % 3} for index in range(n)],
    "ragged": lambda rng, n: [[1] * (1 + index % 2) for index in range(n)],
    "no columns": lambda rng, n: np.empty((n, 0)),
    "three dimensions": lambda rng, n: np.zeros((n, 2, 2)),
    "scalar": lambda rng, n: 1,
    "text": lambda rng, n: "abc",
    "nothing": lambda rng, n: None,
    "too short": lambda rng, n: np.arange(max(n - 1, 0)) % 2,
    "empty": lambda rng, n: [],
    "lone surrogates": _objects("\ud800", "a"),
    "huge objects": _objects(10**30, 1),
}


def _scaled(low, high):
    def make(rng, n):
        return 10.0 ** rng.uniform(low, high, n) * rng.choice([-1, 1], n)

    return make


def _values(dtype):
    return lambda rng, n: rng.normal(size=n).astype(dtype)


VALUES_FINE = {
    "normal": _values(np.float64),
    "float32": _values(np.float32),
    "float16": _values(np.float16),
    "ints": lambda rng, n: rng.integers(-9, 9, n),
    "bools": lambda rng, n: rng.random(n) < 0.5,
    "constant": lambda rng, n: np.full(n, float(rng.choice([0, 3, 1e150, 1e-300]))),
    "huge": _scaled(140, 149.9),
    "large": _scaled(30, 60),
    "tiny": _scaled(-320, -290),
    "small": _scaled(-60, -40),
    "all sizes": _scaled(-300, 149),
    "one apart": lambda rng, n: np.where(np.arange(n) == n - 1, 1e149, 0.0),
    "neighbours": lambda rng, n: np.nextafter(1.0, rng.choice([0, 1, 2], n)),
    "int64": lambda rng, n: rng.integers(-(2**63), 2**63 - 1, n),
    "uint64": lambda rng, n: rng.integers(0, 2**64 - 1, n, dtype=np.uint64),
    "list": kept_as(list, _values(float)),
    "series": kept_as(pd.Series, _values(float)),
    "Int64": _series("Int64", 1, 2, 3),
    "Float64": _series("Float64", 1.5, 2.0),
    "arrow double": _series("double[pyarrow]", 1.5, 2.0),
    "objects": _objects(1.5, 2, np.float32(3)),
    "column": lambda rng, n: rng.normal(size=(n, 1)),
    "several": lambda rng, n: rng.normal(size=(n, 3)),
    "several sizes": lambda rng, n: rng.normal(size=(n, 3)) * [1e140, 1.0, 1e-300],
    "several, one constant": lambda rng, n: rng.normal(size=(n, 2)) * [1, 0],
    "frame": lambda rng, n: pd.DataFrame(rng.normal(size=(n, 2))),
    "read-only": lambda rng, n: np.broadcast_to(1.5, n),
}
VALUES_ODD = {
    "beyond": _scaled(151, 307),
    "NaN": _with(_values(float), np.nan),
    "infinite": _with(_values(float), -np.inf),
    "None": _with(_values(float), None),
    "NA": _series("Float64", 1.5, pd.NA),
    "longdouble": lambda rng, n: np.full(n, np.longdouble("1e400")),
    "decimals": _objects(decimal.Decimal("1.5"), decimal.Decimal(2)),
    "words": labels("a", "b"),
    "words of numbers": labels("1", "2.5"),
    "category": _series("category", "a", "b"),
    "category of numbers": _series("category", 1, 2),
    "dates": lambda rng, n: np.arange(n).astype("datetime64[D]"),
    "spans": lambda rng, n: np.arange(n).astype("timedelta64[s]"),
    "complex": lambda rng, n: rng.normal(size=n) + 1j,
    "huge objects": _objects(10**400, 1),
    "large objects": _objects(2**70, 1),
    "sparse": lambda rng, n: sparse.csr_matrix(rng.normal(size=(n, 2))),
    "ragged": CLASSES_ODD["ragged"],
    "no columns": CLASSES_ODD["no columns"],
    "three dimensions": CLASSES_ODD["three dimensions"],
    "scalar": CLASSES_ODD["scalar"],
    "text": CLASSES_ODD["text"],
    "nothing": CLASSES_ODD["nothing"],
    "too short": CLASSES_ODD["too short"],
    "empty": CLASSES_ODD["empty"],
}

WEIGHTS_FINE = {
    "none": lambda rng, n: None,
    "ones": lambda rng, n: np.ones(n),
    "floats": lambda rng, n: rng.uniform(0.1, 3, n),
    "ints": lambda rng, n: rng.integers(1, 5, n),
    "list": lambda rng, n: [1.0] * n,
    "series": lambda rng, n: pd.Series(np.full(n, 2.0)),
    "shares": lambda rng, n: np.full(n, 1 / n),
    "one number": lambda rng, n: 2.5,
}
WEIGHTS_ODD = {
    "zeros": lambda rng, n: np.zeros(n),
    "some zeros": lambda rng, n: rng.integers(0, 2, n),
    "one row": lambda rng, n: (np.arange(n) == 0).astype(float),
    "huge": lambda rng, n: rng.uniform(1e299, 1e300, n),
    "largest": lambda rng, n: np.full(n, np.finfo(float).max),
    "large": lambda rng, n: 10.0 ** rng.uniform(0, 12, n),
    "tiny": lambda rng, n: rng.uniform(1e-300, 1e-299, n),
    "denormal": lambda rng, n: np.full(n, 5e-324),
    "all sizes": lambda rng, n: 10.0 ** rng.uniform(-300, 300, n),
    "one apart": lambda rng, n: np.where(np.arange(n) == 0, 1e15, 1.0),
    "negative": lambda rng, n: rng.normal(size=n),
    "NaN": lambda rng, n: np.where(np.arange(n) == 0, np.nan, 1.0),
    "infinite": lambda rng, n: np.where(np.arange(n) == 0, np.inf, 1.0),
    "bools": lambda rng, n: np.arange(n) % 3 > 0,
    "words": lambda rng, n: ["a"] * n,
    "words of numbers": lambda rng, n: ["1"] * n,
    "too short": lambda rng, n: np.ones(max(n - 1, 0)),
    "column": lambda rng, n: np.ones((n, 1)),
    "Float64": lambda rng, n: pd.Series([1.0] * n, dtype="Float64"),
    "NA": lambda rng, n: pd.Series([None] + [1.0] * (n - 1), dtype="Float64"),
    "text": lambda rng, n: "balanced",
    "complex": lambda rng, n: np.ones(n) + 1j,
    "objects": lambda rng, n: np.ones(n).astype(object),
}
GROUPS_ODD = {
    "ints": lambda rng, n: rng.integers(0, 4, n),
    "words": lambda rng, n: rng.choice(["a", "b", "c"], n),
    "one": lambda rng, n: np.zeros(n),
    "each another": lambda rng, n: np.arange(n),
    "NaN": lambda rng, n: np.where(np.arange(n) % 3, np.arange(n) % 4, np.nan),
    "None": lambda rng, n: [None if index % 3 else "a" for index in range(n)],
    "mixed": lambda rng, n: [("a", 1, 2.5)[index % 3] for index in range(n)],
    "tuples": lambda rng, n: [(index % 3, "a") for index in range(n)],
    "dates": lambda rng, n: np.arange(n).astype("datetime64[D]"),
    "category": lambda rng, n: pd.Series(rng.choice(["a", "b"], n)).astype("category"),
    "Int64": lambda rng, n: pd.array([1, 2, None] * n, dtype="Int64")[:n],
    "too short": lambda rng, n: np.arange(max(n - 1, 0)),
    "two columns": lambda rng, n: np.zeros((n, 2)),
    "text": lambda rng, n: "groups",
    "scalar": lambda rng, n: 3,
    "lists": lambda rng, n: [[1]] * n,
}
