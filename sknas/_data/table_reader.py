"""Tables: which column is what, and its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Number
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype
from sklearn.utils.validation import validate_data

from sknas._data.reader import Reader, dense_rows
from sknas._data.table_encoder import Table, TableEncoder
from sknas._validation import brief, reject

MAX_TOLD = 200  # characters of another library's error


@dataclass(eq=False)
class TableReader(Reader):
    """Turns arrays and frames into a `Table`.

    Parameters
    ----------
    owner : str
        Name of the estimator, for messages.
    categorical_features : "from_dtype", None, or array-like of bool, int or str
        Columns to read as categories; "from_dtype" takes those of category, string,
        boolean and object dtype.
    """

    caller_name: str
    categorical_features: Any = "from_dtype"
    names_: list[str] = field(default_factory=list, init=False)
    categorical_: list[int] = field(default_factory=list, init=False)
    vocabularies_: list[np.ndarray] = field(default_factory=list, init=False)

    least_rows = 256  # columns of a frame are read one by one

    def check(
        self, estimator: Any, X: Any, *, reset: bool
    ) -> np.ndarray | pd.DataFrame:
        least = 2 if reset else 1
        X = dense_rows(self.caller_name, X)
        if isinstance(X, list | tuple):
            X = _array_of_cells(X)
        if not isinstance(X, pd.DataFrame):
            if getattr(X, "ndim", 2) > 2:
                raise ValueError(
                    "X must have 2 dimensions for search_space="
                    f"{estimator.search_space!r}, got an array of shape {X.shape}: "
                    "give one row a sample."
                )
            return validate_data(
                estimator,
                X,
                reset=reset,
                dtype=None,
                ensure_all_finite=False,
                ensure_min_samples=least,
            )
        n_rows, n_columns = X.shape
        for found, wanted, what in (
            (n_rows, least, "sample"),
            (n_columns, 1, "feature"),
        ):
            if found < wanted:
                raise ValueError(
                    f"Found array with {found} {what}(s) (shape={X.shape}) while a "
                    f"minimum of {wanted} is required by {self.caller_name}."
                )
        return validate_data(estimator, X, reset=reset, skip_check_array=True)

    def fit(self, X: np.ndarray | pd.DataFrame) -> TableReader:
        """Learn which columns are categories, and their words."""
        self.names_ = _column_names(X)
        for place, name in enumerate(self.names_):
            _reject_complex(_column(X, place), name)
        self.categorical_ = self._find_categorical(X)
        self.vocabularies_ = []
        for place in self.categorical_:
            with _reading(self.names_[place]):
                self.vocabularies_.append(_vocabulary(_column(X, place)))
        return self

    def read(self, X: np.ndarray | pd.DataFrame) -> Table:
        """Read rows with the layout learnt.

        Raises
        ------
        ValueError
            If a numeric column holds text, dates, complex numbers or infinity.
        """
        chosen = set(self.categorical_)
        places = [p for p in range(len(self.names_)) if p not in chosen]
        with np.errstate(over="ignore"):  # what no double can hold is infinity
            numeric = self._read_numbers(X, places)
        self._reject_infinity(numeric, places)
        codes = np.empty((len(X), len(self.categorical_)), dtype=np.int64)
        for j, (place, words) in enumerate(
            zip(self.categorical_, self.vocabularies_, strict=True)
        ):
            with _reading(self.names_[place]):
                codes[:, j] = _codes(_column(X, place), words)
        return Table(numeric, codes)

    def _read_numbers(
        self, X: np.ndarray | pd.DataFrame, places: list[int]
    ) -> np.ndarray:
        """The numeric columns (N, F), NaN where missing."""
        is_plain = isinstance(X, np.ndarray) and X.dtype.kind in "fiub"
        if is_plain and not self.categorical_:
            return np.asarray(X, dtype=_float_type([X.dtype]))
        columns = [_numbers(_column(X, p), self.names_[p]) for p in places]
        dtype = _float_type([c.dtype for c in columns])
        numeric: np.ndarray = np.empty((len(X), len(places)), dtype=dtype)
        for place, column in enumerate(columns):
            numeric[:, place] = column
        return numeric

    def forget(self, encoders: Sequence[TableEncoder]) -> None:
        """Drop the words that no level of the encoders stands for.

        Nothing changes but the size: what is forgotten was coded as unknown before.
        """
        lookups = [dict([*e.remaps_, *e.pairs_]) for e in encoders]
        for j, words in enumerate(self.vocabularies_):
            own = [lookup[j] for lookup in lookups if j in lookup]
            kept = np.zeros(len(words), dtype=bool)
            for lookup in own:
                kept |= lookup.is_level(len(words))
            for lookup in own:
                lookup.renumber(kept)
            self.vocabularies_[j] = words[kept]

    def _reject_infinity(self, numeric: np.ndarray, places: list[int]) -> None:
        infinite = np.isinf(numeric).any(axis=0)
        if infinite.any():
            name = self.names_[places[int(np.argmax(infinite))]]
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
            found = []
            for place, name in enumerate(self.names_):
                column = _column(X, place)
                with _reading(name):
                    _reject_dates(column, name)
                    if _is_categorical(column):
                        found.append(place)
            return found
        if not isinstance(given, Iterable) or not getattr(given, "ndim", 1):
            self._reject_categorical(given)
        listed = list(given)
        n_columns = len(self.names_)
        if listed and all(isinstance(g, bool | np.bool_) for g in listed):
            if len(listed) != n_columns:
                self._reject_categorical(given)
            return [place for place, chosen in enumerate(listed) if chosen]
        return sorted({self._place(g, n_columns) for g in listed})

    def _place(self, given: Any, n_columns: int) -> int:
        if isinstance(given, str) and given in self.names_:
            return self.names_.index(given)
        if isinstance(given, int | np.integer) and 0 <= given < n_columns:
            return int(given)
        self._reject_categorical(given)
        raise AssertionError  # not reached

    def _reject_categorical(self, given: Any) -> None:
        reject(
            self.caller_name,
            "categorical_features",
            given,
            "'from_dtype', None, a mask of one bool a column, or numbers or names of "
            "columns of X",
        )


def _array_of_cells(X: Any) -> np.ndarray:
    """Rows of a list as an array; cells of different types keep them.

    A cell must not depend on the rows beside it: True stays True beside 1.5.
    """
    try:
        cells = np.array(X, dtype=object)
        types = {type(cell) for cell in cells.ravel()}
        return cells if len(types) > 1 or types <= {str, bytes} else np.asarray(X)
    except ValueError as error:
        raise ValueError(
            "X must hold rows of one length, whose cells are numbers, words or "
            "missing, got a list of lists of different lengths."
        ) from error


def _column_names(X: np.ndarray | pd.DataFrame) -> list[str]:
    if isinstance(X, pd.DataFrame):
        return [str(name) for name in X.columns]
    return [f"x{place}" for place in range(X.shape[1])]


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Names the column that can't be read: its cells may be objects of any kind."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"Column {brief(name)} of X can't be read, it ended in "
            f"{type(error).__name__}: turn it into numbers, words or booleans."
        ) from error


def _column(X: np.ndarray | pd.DataFrame, place: int) -> pd.Series | np.ndarray:
    return X.iloc[:, place] if isinstance(X, pd.DataFrame) else X[:, place]


def _float_type(dtypes: Sequence[Any]) -> type:
    """float32 if that loses nothing, else float64."""
    small = dtypes and all(dtype in (np.float32, np.float16) for dtype in dtypes)
    return np.float32 if small else np.float64


def _is_categorical(column: pd.Series | np.ndarray) -> bool:
    """Whether a column's dtype, or what an object column holds, is words."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or dtype.kind in "US":
        return True
    if dtype.kind == "O" and not pd.api.types.is_extension_array_dtype(dtype):
        held = infer_dtype(column, skipna=True)
        if held in ("mixed", "mixed-integer"):
            cells = pd.Series(column).dropna()
            return any(isinstance(c, bool) or not isinstance(c, Number) for c in cells)
        return held not in (*_NUMBERS, "empty")
    return pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_string_dtype(dtype)


_SMALL = ("float16", "float32", "halffloat[pyarrow]", "float[pyarrow]")


# What pandas infers of the cells of an object column.
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")


_DATES = (
    "datetime64",
    "datetime",
    "date",
    "timedelta64",
    "timedelta",
    "time",
    "period",
)


def _reject_dates(column: pd.Series | np.ndarray, name: str) -> None:
    dtype = column.dtype
    is_date = dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype)
    is_date |= isinstance(dtype, pd.DatetimeTZDtype)
    if dtype.kind == "O" and not isinstance(
        dtype, pd.CategoricalDtype | pd.StringDtype
    ):
        is_date |= infer_dtype(column, skipna=True) in _DATES
    if is_date:
        raise ValueError(
            f"Column {name!r} of X holds dates ({dtype}), which are not read: turn it "
            "into numbers or categories first, such as year, month and weekday."
        )


def _reject_complex(column: pd.Series | np.ndarray, name: str) -> None:
    if column.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: column {name!r} of X holds it, give the "
            "real and the imaginary part as two columns."
        )


def _numbers(column: pd.Series | np.ndarray, name: str) -> np.ndarray:
    """A numeric column as floats, NaN where missing."""
    _reject_dates(column, name)
    _reject_complex(column, name)
    dtype = column.dtype
    if isinstance(column, np.ndarray) and dtype.kind in "fiub":
        return column
    target = np.float32 if str(dtype).lower() in _SMALL else np.float64
    try:
        return pd.Series(column).to_numpy(dtype=target, na_value=np.nan)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"Column {name!r} of X must hold numbers as it did in fit, or be named in "
            f"'categorical_features': {shorten(str(error), MAX_TOLD)}."
        ) from error


def _words(column: pd.Series | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different words of a column, and the place of each cell's, -1 if missing."""
    # Of an array pandas would make its own texts, which not all can be.
    is_plain = isinstance(column, np.ndarray) and column.dtype.kind in "OUS"
    series = pd.Series(column, dtype=object if is_plain else None)
    if isinstance(series.dtype, np.dtype) and not series.dtype.isnative:
        series = series.astype(series.dtype.newbyteorder("="))  # pandas can't read it
    if series.dtype == np.dtype(object) and infer_dtype(series) != "string":
        # Cells that can't be hashed, or that Python takes for equal: 1 and True.
        series = series.map(_word, na_action="ignore")
    with np.errstate(over="ignore"):  # what no double can hold is infinity
        places, uniques = pd.factorize(series)
    return np.array([_word(value) for value in uniques], dtype=object), places


def _word(value: Any) -> str:
    """A category as text; the same for 1, 1.0 and "1", and for True and "True"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _vocabulary(column: pd.Series | np.ndarray) -> np.ndarray:
    """The words of a column, sorted: independent of the order of rows."""
    words, _ = _words(column)
    return np.array(sorted(set(words)), dtype=object)


def _codes(column: pd.Series | np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """Place of each cell in the vocabulary, see `Table`."""
    words, places = _words(column)
    known = pd.Index(vocabulary, dtype=object)
    codes = np.append(known.get_indexer(pd.Index(words, dtype=object)), 0)[places]
    codes[places == -1] = len(vocabulary)
    return codes
