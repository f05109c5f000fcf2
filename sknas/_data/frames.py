"""Frames of pandas, polars and Arrow as pandas frames of plain columns."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sknas._validation import short_repr

# Kinds of Arrow types that pandas reads like its own, see `numpy.dtype.kind`.
ARROW_KINDS = "iufbUmM"


def plain_frame(X: Any) -> pd.DataFrame | None:
    """Return a frame as one of pandas, whose columns it can read; None for others.

    Raises
    ------
    TypeError
        If X is lazy.
    ValueError
        If two columns have the same name.
    """
    if hasattr(X, "collect") and hasattr(X, "lazy"):
        raise TypeError("X is a lazy frame, give its rows: X.collect().")
    if isinstance(X, pd.DataFrame):
        return _plain_columns(X)
    if hasattr(X, "get_column"):  # polars
        return pd.DataFrame({name: _from_polars(X[name]) for name in X.columns})
    if hasattr(X, "to_pandas") and hasattr(X, "schema"):  # a table of Arrow
        return _plain_columns(X.to_pandas(types_mapper=pd.ArrowDtype))
    return None


def plain_series(y: Any) -> Any:
    """Return a column of pandas, polars or Arrow as one that pandas can read."""
    if hasattr(y, "to_pylist") and hasattr(y, "type"):  # an array of Arrow
        y = pd.Series(pd.array(y, dtype=pd.ArrowDtype(y.type)))
    if isinstance(y, pd.Series):
        return _plain_column(y)
    is_polars = hasattr(y, "to_list") and hasattr(y, "null_count")
    return _from_polars(y) if is_polars else y


def _plain_columns(X: pd.DataFrame) -> pd.DataFrame:
    if not X.columns.is_unique:
        duplicate = X.columns[X.columns.duplicated()][0]
        raise ValueError(
            f"Columns of X must have different names, {short_repr(duplicate)} occurs "
            "more than once: rename them."
        )
    changed = [i for i, dtype in enumerate(X.dtypes) if not _is_plain(dtype)]
    if changed:
        X = X.copy(deep=False)
    for index in changed:
        X.isetitem(index, _plain_column(X.iloc[:, index]))
    return X


def _is_plain(dtype: Any) -> bool:
    """Return True for dtypes that pandas reads without Arrow, or as quickly."""
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.kind in ARROW_KINDS
    return not isinstance(dtype, pd.SparseDtype)


def _plain_column(column: pd.Series) -> pd.Series:
    """Return a column as one that pandas can read."""
    dtype = column.dtype
    if _is_plain(dtype):
        return column
    if isinstance(dtype, pd.SparseDtype):
        return column.sparse.to_dense()
    cells = pd.Series(
        column.array.__arrow_array__().to_pylist(), column.index, dtype=object
    )
    # A dictionary is what Arrow makes of categories.
    is_category = str(dtype).startswith("dictionary")
    return cells.astype("category") if is_category else cells


def _from_polars(column: Any) -> Any:
    dtype = column.dtype
    if dtype.is_nested() or str(dtype).endswith("128"):  # numpy has no such dtype
        return pd.Series(column.to_list(), dtype=object)
    if dtype.is_integer() and column.null_count():  # numpy would make floats of them
        values = pd.Series(pd.array(column.fill_null(0).to_numpy()))
        return values.mask(column.is_null().to_numpy())
    if getattr(dtype, "time_zone", None):
        instants = pd.Series(column.to_numpy()).dt.tz_localize("UTC")
        return instants.dt.tz_convert(dtype.time_zone)
    return column.to_numpy()
