"""Columns of a table: each kind learns its layout once, and reads any dtype."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from numbers import Number
from textwrap import shorten
from typing import TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from sknas._data.time_values import kind_of_dates
from sknas._data.vocabulary import Vocabulary
from sknas._validation import short_repr

Values: TypeAlias = "pd.Series | np.ndarray"  # the cells of one column

MAX_ERROR_CHARS = 200  # length of another library's message within ours
SINGLE_PRECISION = ("float16", "float32", "halffloat[pyarrow]", "float[pyarrow]")
FLAGS = {str(flag): int(flag) for flag in (False, True)}
# Names that `pandas.api.types.infer_dtype` gives the cells of an object column.
NUMERIC_CELLS = ("integer", "floating", "mixed-integer-float", "decimal")


class Column(ABC):
    """One column of a table.

    Parameters
    ----------
    name : str
        Its name, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def fit(self, values: Values) -> Column:
        """Learn the layout."""

    @abstractmethod
    def read(self, values: Values) -> np.ndarray:
        """Read cells, whose dtype may differ from that in `fit`.

        Raises
        ------
        ValueError
            If they can't be cells of this column.
        """


class NumberColumn(Column):
    """A column of numbers, which is read as floats (N,), NaN where missing."""

    def fit(self, values: Values) -> NumberColumn:
        reject_unreadable(values, self.name)
        return self

    def read(self, values: Values) -> np.ndarray:
        reject_unreadable(values, self.name)
        reject_dates(values, self.name)
        numbers = self._as_floats(values)
        reject_infinity(numbers, self.name)
        return numbers

    def _as_floats(self, values: Values) -> np.ndarray:
        dtype = values.dtype
        if isinstance(values, np.ndarray) and dtype.kind in "fiub":
            return values if dtype.itemsize <= 8 else _as_doubles(values)
        series, float_type = pd.Series(values), _float_type(values)
        try:
            if series.dtype.kind in "OUT" and series.isin(FLAGS).any():
                series = series.map(lambda cell: FLAGS.get(cell, cell)).astype(object)
            with np.errstate(over="ignore"):  # infinity, which is refused
                return series.to_numpy(dtype=float_type, na_value=np.nan)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(
                f"Column {self.name!r} of X is read as numbers, it must hold nothing "
                "else in fit and in predict, or be named in 'categorical_features': "
                f"{shorten(str(error), MAX_ERROR_CHARS)}."
            ) from error


class MissingColumn(Column):
    """A column without a value in `fit`: whatever it holds later says nothing."""

    def fit(self, values: Values) -> MissingColumn:
        self.dtype_ = _float_type(values)
        return self

    def read(self, values: Values) -> np.ndarray:
        return np.full(len(values), np.nan, dtype=self.dtype_)


class CategoryColumn(Column):
    """A column of categories, which is read as codes (N,), see `RawTable`.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The categories in `fit`.
    """

    def fit(self, values: Values) -> CategoryColumn:
        reject_unreadable(values, self.name)
        self.vocabulary_ = Vocabulary().fit(values)
        return self

    def read(self, values: Values) -> np.ndarray:
        reject_unreadable(values, self.name)
        try:
            return self.vocabulary_.encode(values)
        except ValueError as error:
            raise ValueError(
                f"Column {self.name!r} of X {error}: give values of the same kind."
            ) from error


def _float_type(values: Values) -> type:
    is_single = str(values.dtype).lower() in SINGLE_PRECISION
    return np.float32 if is_single else np.float64


def _as_doubles(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity, which is refused
        return values.astype(np.float64)


def is_categorical(values: Values) -> bool:
    """Return True if the dtype, or the cells, are neither numbers nor dates."""
    if kind_of_dates(values) is not None:
        return False
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or dtype.kind in "US":
        return True
    if _is_object(values):
        inferred = infer_dtype(values, skipna=True)
        if inferred in ("mixed", "mixed-integer"):
            cells = pd.Series(values).dropna()
            return any(isinstance(c, bool) or not isinstance(c, Number) for c in cells)
        return inferred not in (*NUMERIC_CELLS, "empty")
    return pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_string_dtype(dtype)


def _is_object(values: Values) -> bool:
    """Return True if the cells are Python objects."""
    dtype = values.dtype
    return dtype.kind == "O" and not pd.api.types.is_extension_array_dtype(dtype)


def reject_unreadable(values: Values, name: str) -> None:
    """Refuse complex numbers, and cells that hold several values each."""
    if values.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: column {name!r} of X is complex, give the "
            "real and the imaginary part as two columns."
        )
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.dtype.categories
    if not _is_object(values):
        return
    cells = np.asarray(values, dtype=object)
    for type_ in set(map(type, cells)):
        if issubclass(type_, Collection) and not issubclass(type_, str | bytes):
            cell = next(cell for cell in cells if type(cell) is type_)
            raise ValueError(
                f"Column {name!r} of X holds {type_.__name__} objects such as "
                f"{short_repr(cell)}, a cell must hold one value: give each of their "
                "values in a column of its own, for example with pandas by "
                f"pd.DataFrame(X[{name!r}].tolist())."
            )


def reject_infinity(numbers: np.ndarray, name: str) -> None:
    """Refuse infinite numbers."""
    if np.isinf(numbers).any():
        raise ValueError(
            f"Column {name!r} of X holds infinity, numbers must be finite or NaN: "
            "replace it by NaN or by a large number."
        )


def reject_dates(values: Values, name: str) -> None:
    """Refuse dates, durations and times of day."""
    kind = kind_of_dates(values)
    if kind is not None:
        raise ValueError(
            f"Column {name!r} of X holds {kind} ({values.dtype}), but numbers in fit: "
            "give numbers as in fit, or fit again."
        )
