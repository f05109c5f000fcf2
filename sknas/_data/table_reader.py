"""Reading of tables: which columns are categories, and their vocabularies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Number
from textwrap import shorten
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype
from sklearn.utils.validation import validate_data

from sknas._data.reader import Reader, dense_rows
from sknas._data.table_encoder import RawTable, TableEncoder
from sknas._validation import reject, short_repr

MAX_ERROR_CHARS = 200  # length of another library's message within ours
SINGLE_PRECISION = ("float16", "float32", "halffloat[pyarrow]", "float[pyarrow]")
# Names that `pandas.api.types.infer_dtype` gives the cells of an object column.
NUMERIC_CELLS = ("integer", "floating", "mixed-integer-float", "decimal")
DATE_CELLS = (
    "datetime64",
    "datetime",
    "date",
    "timedelta64",
    "timedelta",
    "time",
    "period",
)


@dataclass(eq=False)
class TableReader(Reader):
    """Reads arrays and frames as a `RawTable`.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    categorical_features : "from_dtype", None, or array-like of bool, int or str
        Columns to read as categories; "from_dtype" takes those of category, string,
        boolean and object dtype.

    Attributes
    ----------
    names_ : list of str
        Names of the columns.
    categorical_ : list of int
        Indices of the columns that are categories.
    vocabularies_ : list of ndarray of str
        Sorted categories of each categorical column.
    """

    caller_name: str
    categorical_features: Any = "from_dtype"

    min_chunk_rows = 256  # columns of a frame are read one by one

    def check(
        self, estimator: Any, X: Any, *, reset: bool
    ) -> np.ndarray | pd.DataFrame:
        min_rows = 2 if reset else 1
        X = dense_rows(self.caller_name, X)
        if isinstance(X, list | tuple):
            X = _array_of_cells(X)
        if not isinstance(X, pd.DataFrame):
            if getattr(X, "ndim", 2) > 2:
                raise ValueError(
                    "X must have 2 dimensions for search_space="
                    f"{estimator.search_space!r}, got an array of shape {X.shape}: "
                    "give one row per sample."
                )
            return validate_data(
                estimator,
                X,
                reset=reset,
                dtype=None,
                ensure_all_finite=False,
                ensure_min_samples=min_rows,
            )
        n_rows, n_columns = X.shape
        for found, needed, noun in (
            (n_rows, min_rows, "sample"),
            (n_columns, 1, "feature"),
        ):
            if found < needed:
                raise ValueError(
                    f"Found array with {found} {noun}(s) (shape={X.shape}) while a "
                    f"minimum of {needed} is required by {self.caller_name}."
                )
        return validate_data(estimator, X, reset=reset, skip_check_array=True)

    def fit(self, X: np.ndarray | pd.DataFrame) -> TableReader:
        """Learn which columns are categories, and their vocabularies."""
        self.names_ = _column_names(X)
        for index, name in enumerate(self.names_):
            _reject_complex(_column(X, index), name)
        self.categorical_ = self._find_categorical(X)
        self.vocabularies_: list[np.ndarray] = []
        for index in self.categorical_:
            with _naming_column(self.names_[index]):
                self.vocabularies_.append(_vocabulary(_column(X, index)))
        return self

    def read(self, X: np.ndarray | pd.DataFrame) -> RawTable:
        """Read rows with the learnt layout.

        Raises
        ------
        ValueError
            If a numeric column holds text, dates, complex numbers or infinity.
        """
        categorical = set(self.categorical_)
        indices = [i for i in range(len(self.names_)) if i not in categorical]
        with np.errstate(over="ignore"):  # too large for doubles: infinity
            numeric = self._read_numeric(X, indices)
        self._reject_infinity(numeric, indices)
        codes = np.empty((len(X), len(self.categorical_)), dtype=np.int64)
        for j, (index, vocabulary) in enumerate(
            zip(self.categorical_, self.vocabularies_, strict=True)
        ):
            with _naming_column(self.names_[index]):
                codes[:, j] = _codes(_column(X, index), vocabulary)
        return RawTable(numeric, codes)

    def _read_numeric(
        self, X: np.ndarray | pd.DataFrame, indices: list[int]
    ) -> np.ndarray:
        """Return numeric columns (N, F), NaN where missing."""
        is_plain = isinstance(X, np.ndarray) and X.dtype.kind in "fiub"
        if is_plain and not self.categorical_:
            return np.asarray(X, dtype=_float_type([X.dtype]))
        columns = [_as_floats(_column(X, i), self.names_[i]) for i in indices]
        dtype = _float_type([c.dtype for c in columns])
        numeric: np.ndarray = np.empty((len(X), len(indices)), dtype=dtype)
        for j, column in enumerate(columns):
            numeric[:, j] = column
        return numeric

    def prune_vocabulary(self, encoders: Sequence[TableEncoder]) -> None:
        """Drop categories that are a level of no encoder.

        The encoders code them as unknown already, so only memory changes.
        """
        by_encoder = [dict([*e.category_codes_, *e.category_signs_]) for e in encoders]
        for j, vocabulary in enumerate(self.vocabularies_):
            lookups = [by_column[j] for by_column in by_encoder if j in by_column]
            is_kept = np.zeros(len(vocabulary), dtype=bool)
            for lookup in lookups:
                is_kept |= lookup.is_level(len(vocabulary))
            for lookup in lookups:
                lookup.renumber(is_kept)
            self.vocabularies_[j] = vocabulary[is_kept]

    def _reject_infinity(self, numeric: np.ndarray, indices: list[int]) -> None:
        infinite = np.isinf(numeric).any(axis=0)
        if infinite.any():
            name = self.names_[indices[int(np.argmax(infinite))]]
            raise ValueError(
                f"Column {name!r} of X holds infinity, {self.caller_name} takes finite "
                "numbers and NaN: replace it by NaN or by a large number."
            )

    def _find_categorical(self, X: np.ndarray | pd.DataFrame) -> list[int]:
        given = self.categorical_features
        if given is None:
            return []
        if isinstance(given, str):
            if given != "from_dtype":
                self._reject_categorical(given)
            return self._categorical_by_dtype(X)
        if not isinstance(given, Iterable) or not getattr(given, "ndim", 1):
            self._reject_categorical(given)
        listed = list(given)
        n_columns = len(self.names_)
        if listed and all(isinstance(g, bool | np.bool_) for g in listed):
            if len(listed) != n_columns:
                self._reject_categorical(given)
            return [index for index, chosen in enumerate(listed) if chosen]
        return sorted({self._column_index(g, n_columns) for g in listed})

    def _categorical_by_dtype(self, X: np.ndarray | pd.DataFrame) -> list[int]:
        found = []
        for index, name in enumerate(self.names_):
            column = _column(X, index)
            with _naming_column(name):
                _reject_dates(column, name)
                if _is_categorical(column):
                    found.append(index)
        return found

    def _column_index(self, given: Any, n_columns: int) -> int:
        if isinstance(given, str) and given in self.names_:
            return self.names_.index(given)
        if isinstance(given, int | np.integer) and 0 <= given < n_columns:
            return int(given)
        self._reject_categorical(given)

    def _reject_categorical(self, given: Any) -> NoReturn:
        reject(
            self.caller_name,
            "categorical_features",
            given,
            "'from_dtype', None, a mask of one bool per column, or indices or names of "
            "columns of X",
        )


def _array_of_cells(X: Any) -> np.ndarray:
    """Return a list of rows as an array whose cells keep their types if they differ.

    A cell must not depend on other rows: True stays True next to 1.5.
    """
    try:
        cells = np.array(X, dtype=object)
        types = {type(cell) for cell in cells.ravel()}
        return cells if len(types) > 1 or types <= {str, bytes} else np.asarray(X)
    except ValueError as error:
        raise ValueError(
            "X must hold rows of one length, whose cells are numbers, strings or "
            "missing, got a list of lists of different lengths."
        ) from error


def _column_names(X: np.ndarray | pd.DataFrame) -> list[str]:
    if isinstance(X, pd.DataFrame):
        return [str(name) for name in X.columns]
    return [f"x{index}" for index in range(X.shape[1])]


@contextmanager
def _naming_column(name: str) -> Iterator[None]:
    """Name the column in errors that its cells, arbitrary objects, may raise."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"Column {short_repr(name)} of X can't be read, {type(error).__name__} was "
            "raised: turn it into numbers, strings or booleans."
        ) from error


def _column(X: np.ndarray | pd.DataFrame, index: int) -> pd.Series | np.ndarray:
    return X.iloc[:, index] if isinstance(X, pd.DataFrame) else X[:, index]


def _float_type(dtypes: Sequence[Any]) -> type:
    """Return float32 if it can hold all values of the dtypes, else float64."""
    is_single = dtypes and all(dtype in (np.float32, np.float16) for dtype in dtypes)
    return np.float32 if is_single else np.float64


def _is_categorical(column: pd.Series | np.ndarray) -> bool:
    """Return True if the dtype, or the cells of an object column, are not numeric."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or dtype.kind in "US":
        return True
    if dtype.kind == "O" and not pd.api.types.is_extension_array_dtype(dtype):
        inferred = infer_dtype(column, skipna=True)
        if inferred in ("mixed", "mixed-integer"):
            cells = pd.Series(column).dropna()
            return any(isinstance(c, bool) or not isinstance(c, Number) for c in cells)
        return inferred not in (*NUMERIC_CELLS, "empty")
    return pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_string_dtype(dtype)


def _reject_dates(column: pd.Series | np.ndarray, name: str) -> None:
    dtype = column.dtype
    is_date = dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype)
    is_date |= isinstance(dtype, pd.DatetimeTZDtype)
    if dtype.kind == "O" and not isinstance(
        dtype, pd.CategoricalDtype | pd.StringDtype
    ):
        is_date |= infer_dtype(column, skipna=True) in DATE_CELLS
    if is_date:
        raise ValueError(
            f"Column {name!r} of X holds dates ({dtype}), which are not read: turn it "
            "into numbers or categories first, such as year, month and weekday."
        )


def _reject_complex(column: pd.Series | np.ndarray, name: str) -> None:
    if column.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: column {name!r} of X is complex, give the "
            "real and the imaginary part as two columns."
        )


def _as_floats(column: pd.Series | np.ndarray, name: str) -> np.ndarray:
    """Return a numeric column as an array of numbers, NaN where missing."""
    _reject_dates(column, name)
    _reject_complex(column, name)
    dtype = column.dtype
    if isinstance(column, np.ndarray) and dtype.kind in "fiub":
        return column
    is_single = str(dtype).lower() in SINGLE_PRECISION
    float_type = np.float32 if is_single else np.float64
    try:
        return pd.Series(column).to_numpy(dtype=float_type, na_value=np.nan)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"Column {name!r} of X must hold numbers as it did in fit, or be named in "
            f"'categorical_features': {shorten(str(error), MAX_ERROR_CHARS)}."
        ) from error


def _factorize(column: pd.Series | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return categories as text, and the index of each cell in them, -1 if missing.

    The text of two categories may be the same.
    """
    # As objects: pandas can't turn every numpy string array into its own strings.
    is_plain = isinstance(column, np.ndarray) and column.dtype.kind in "OUS"
    series = pd.Series(column, dtype=object if is_plain else None)
    if isinstance(series.dtype, np.dtype) and not series.dtype.isnative:
        series = series.astype(series.dtype.newbyteorder("="))  # pandas can't read it
    if series.dtype == np.dtype(object) and infer_dtype(series) != "string":
        # Cells may be unhashable, or equal in Python but not as text: 1 and True.
        series = series.map(_as_text, na_action="ignore")
    with np.errstate(over="ignore"):  # too large for doubles: infinity
        indices, uniques = pd.factorize(series)
    return np.array([_as_text(value) for value in uniques], dtype=object), indices


def _as_text(value: Any) -> str:
    """Return a category as text, the same for 1, 1.0 and "1", for True and "True"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _vocabulary(column: pd.Series | np.ndarray) -> np.ndarray:
    """Return the categories of a column, sorted so that row order does not matter."""
    categories, _ = _factorize(column)
    return np.array(sorted(set(categories)), dtype=object)


def _codes(column: pd.Series | np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """Return the index of each cell in the vocabulary, see `RawTable`."""
    categories, indices = _factorize(column)
    known = pd.Index(vocabulary, dtype=object)
    codes = np.append(known.get_indexer(pd.Index(categories, dtype=object)), 0)[indices]
    codes[indices == -1] = len(vocabulary)
    return codes
