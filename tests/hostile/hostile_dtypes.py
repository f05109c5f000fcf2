"""Cases whose columns have other dtypes and containers in predict than in fit."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hostile_cases import TINY, Case

from sknas import NASClassifier, NASRegressor

TEXTS = ("string", "string[pyarrow]")
# Dtypes that hold the values of a column, and gaps.
FLAGS = ("boolean", "bool[pyarrow]", "Int8", "uint8[pyarrow]", "float32", "object")
INTEGERS = ("Int8", "Int64", "int16[pyarrow]", "float64", "Float32", "object")
FRACTIONS = ("float32", "float64", "Float64", "double[pyarrow]", "object")
WORDS = (*TEXTS, "category", "object")
# Values and dtypes by kind of column.
KINDS = {
    "flags": ((False, True), (*FLAGS, "category")),
    "flags, one rare": ((False,) * 9 + (True,), (*FLAGS, "category")),
    "categories of flags": ((False, True), (*FLAGS, *TEXTS, "category")),
    "integers": ((0, 1, 2, 7), (*INTEGERS, *TEXTS, "category")),
    "categories of integers": ((-3, 0, 1, 100), (*INTEGERS, *TEXTS, "category")),
    "fractions": ((0.1, 0.25, 2.5, -1.0), (*FRACTIONS, *TEXTS, "category")),
    "categories of fractions": (
        (0.1, 3.0, 1 / 3, 3.14159265),
        (*FRACTIONS, *TEXTS, "category"),
    ),
    "words": (("a", "b", "nan", "True", "1", "01", "1.0"), WORDS),
    "words of numbers": (("1", "2", "30"), (*WORDS, "Int64", "int8[pyarrow]")),
}
CONTAINERS = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.DataFrame(
        {name: pl.Series(cells, strict=False) for name, cells in _lists(frame)}
    ),
    "arrow": lambda frame: pa.table(dict(_lists(frame))),
    "objects": lambda frame: _matrix(frame),
    "lists": lambda frame: _matrix(frame).tolist(),
}


def _lists(frame):
    """Return names and Python values of columns, None where missing."""
    objects = frame.astype(object).where(frame.notna(), None)
    return [(name, objects[name].tolist()) for name in objects]


def _matrix(frame):
    return np.array([cells for _, cells in _lists(frame)], dtype=object).T


def dtype_case(seed):
    """Return a valid case, and its rows in other dtypes and containers."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([8, 20, 40, 90]))
    kinds = rng.choice(list(KINDS), rng.integers(1, 5))
    names = [f"{position}: {kind}" for position, kind in enumerate(kinds)]
    values = {
        name: _drawn(rng, n, KINDS[kind][0])
        for name, kind in zip(names, kinds, strict=True)
    }
    values["z"] = rng.normal(size=n).astype(object)
    case = Case(seed, None, None, None, notes=[f"{n} rows"])
    case.X = _frame(rng, values, case)
    tables = [_frame(rng, values, case) for _ in range(2)]
    containers = rng.choice(list(CONTAINERS), 2)
    case.notes.append(str(containers))
    case.alike = [CONTAINERS[c](t) for c, t in zip(containers, tables, strict=True)]
    is_classifier = rng.random() < 0.5
    case.y = np.arange(n) % 2 if is_classifier else rng.normal(size=n)
    case.estimator = (NASClassifier if is_classifier else NASRegressor)(
        categorical_features=[name for name in names if _is_category(name)], **TINY
    )
    return case


def _is_category(name):
    return "categor" in name or "words" in name or "flags" in name


def _drawn(rng, n, values):
    cells = rng.choice(np.array(values, dtype=object), n)
    if rng.random() < 0.4:
        cells[rng.random(n) < 0.2] = None
    return cells


def _frame(rng, values, case):
    columns = {}
    for name, cells in values.items():
        dtypes = KINDS[name.split(": ")[1]][1] if name != "z" else ("float64", "object")
        dtype = dtypes[rng.integers(len(dtypes))]
        columns[name] = _column(cells, dtype)
        case.notes.append(f"{name} {dtype}")
    return pd.DataFrame(columns)


def _column(cells, dtype):
    if dtype in TEXTS:
        cells = [cell if cell is None else str(cell) for cell in cells]
    return pd.Series(cells, dtype="object").astype(dtype)
