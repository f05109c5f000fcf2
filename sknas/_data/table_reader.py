"""Reading of tables: which columns are categories, and their vocabularies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from sklearn.utils.validation import validate_data

from sknas._data.columns import (
    CategoryColumn,
    Column,
    MissingColumn,
    NumberColumn,
    is_categorical,
    reject_infinity,
)
from sknas._data.dates import DateColumn
from sknas._data.reader import Reader, dense_rows
from sknas._data.table_encoder import RawTable, TableEncoder
from sknas._data.time_values import kind_of_dates
from sknas._data.vocabulary import UNSEEN
from sknas._validation import is_word, reject, short_repr, warn_user
from sknas.exceptions import UnseenValuesWarning

MIN_ROWS = 20  # rows from which unseen values are worth a warning
MAX_NAMES = 5  # columns that a warning names
# A day as numbers, maybe with a time; not a version or an address of four numbers.
DATE_TEXT = re.compile(
    r"(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})([ T].*)?"
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
        boolean and object dtype, except objects that are numbers or dates.

    Attributes
    ----------
    names_ : list of str
        Names of the columns.
    numbers_ : dict of int to Column
        The columns read as numbers, of which a date has several, by index.
    categories_ : dict of int to CategoryColumn
        The columns read as categories, by index.
    has_warned_ : bool
        True after a warning about unseen values.
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
        categorical = set(self._find_categorical(X))
        self.numbers_: dict[int, Column] = {}
        self.categories_: dict[int, CategoryColumn] = {}
        for index, name in enumerate(self.names_):
            values = _column(X, index)
            with _naming_column(name):
                if index in categorical:
                    self.categories_[index] = CategoryColumn(name).fit(values)
                elif pd.isna(values).all():
                    self.numbers_[index] = MissingColumn(name).fit(values)
                elif kind_of_dates(values) is not None:
                    self.numbers_[index] = DateColumn(name).fit(values)
                else:
                    self.numbers_[index] = NumberColumn(name).fit(values)
        self.has_warned_ = False
        if is_word(self.categorical_features, "from_dtype"):
            self._warn_of_dates()
        return self

    def _warn_of_dates(self) -> None:
        """Warn of text that looks like dates, which is read as words."""
        columns = self.categories_.values()
        names = [c.name for c in columns if c.vocabulary_.has_words_like(DATE_TEXT)]
        if names:
            warn_user(
                f"Text that looks like dates is read as words in {_listed(names)}: "
                "convert it with pandas.to_datetime, or name it in "
                "'categorical_features' if it is meant so."
            )

    def read(self, X: np.ndarray | pd.DataFrame) -> RawTable:
        """Read rows with the learnt layout.

        Raises
        ------
        ValueError
            If a column does not hold what it held in `fit`, or infinity.
        """
        codes = np.empty((len(X), len(self.categories_)), dtype=np.int64)
        for j, (index, column) in enumerate(self.categories_.items()):
            with _naming_column(column.name):
                codes[:, j] = column.read(_column(X, index))
        return RawTable(self._read_numbers(X), codes)

    def _read_numbers(self, X: np.ndarray | pd.DataFrame) -> np.ndarray:
        """Return numeric columns (N, F), NaN where missing."""
        if (
            isinstance(X, np.ndarray)
            and X.dtype.kind in "fiub"
            and all(isinstance(c, NumberColumn) for c in self.numbers_.values())
            and not self.categories_
        ):
            with np.errstate(over="ignore"):  # infinity, which is refused
                numbers: np.ndarray = np.asarray(X, dtype=_float_type([X.dtype]))
            for i in np.flatnonzero(np.isinf(numbers).any(axis=0)):
                reject_infinity(numbers[:, i], self.names_[i])
            return numbers
        columns = []
        for index, column in self.numbers_.items():
            with _naming_column(column.name):
                columns.append(column.read(_column(X, index)))
        dtype = _float_type([values.dtype for values in columns])
        parts = [values.reshape(len(X), -1) for values in columns]
        parts = [np.empty((len(X), 0), dtype=dtype), *parts]  # there may be none
        return np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe")

    def count_unseen(self, rows: RawTable) -> np.ndarray:
        sizes = [len(column.vocabulary_) for column in self.categories_.values()]
        is_known = rows.codes != np.array(sizes, dtype=np.int64)  # not missing
        return np.stack([(rows.codes == UNSEEN).sum(axis=0), is_known.sum(axis=0)])

    def warn_unseen(self, counts: np.ndarray, n_rows: int) -> None:
        n_unseen, n_values = counts
        is_unknown = 2 * n_unseen > n_values
        if self.has_warned_ or n_rows < MIN_ROWS or not is_unknown.any():
            return
        columns = list(self.categories_.values())
        names = [columns[j].name for j in np.flatnonzero(is_unknown)]
        warn_user(
            f"More than half of the values of X in {_listed(names)} did not occur in "
            "fit, and count as unknown: give the values that fit saw, or fit again.",
            UnseenValuesWarning,
        )
        self.has_warned_ = True  # not if the caller's filters make it an error

    def prune_vocabulary(self, encoders: Sequence[TableEncoder]) -> None:
        """Drop categories that are a level of no encoder.

        The encoders code them as unknown already, so only memory changes.
        """
        by_encoder = [dict([*e.category_codes_, *e.category_signs_]) for e in encoders]
        for j, column in enumerate(self.categories_.values()):
            lookups = [by_column[j] for by_column in by_encoder if j in by_column]
            vocabulary = column.vocabulary_
            is_kept = np.zeros(len(vocabulary), dtype=bool)
            for lookup in lookups:
                is_kept |= lookup.is_level(len(vocabulary))
            for lookup in lookups:
                lookup.renumber(is_kept)
            vocabulary.prune(is_kept)

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
                if is_categorical(column):
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


def _listed(names: list[str]) -> str:
    """Return the names of columns for a message, the first of many."""
    shown = ", ".join(map(repr, names[:MAX_NAMES]))
    return shown + ", ..." * (len(names) > MAX_NAMES)


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
