"""Tables: columns of a frame or an array -> one float array a network can read.

Two steps, so that no statistic of a fold sees its validation rows. A `TableReader`
learns the layout once (which column is numeric, which words a column uses) and turns
any container into a `Table` of numbers and codes. A `TableEncoder` learns statistics
(scale, quantiles, which levels are frequent) from the training rows of one fold.
"""

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

from sknas._checks import brief, reject
from sknas._problem import TaskSpec
from sknas.encoding._base import Encoder, Reader, Samples, dense_rows

N_EDGES = 49  # quantiles kept of a numeric column: 48 bins, which 8 and 16 divide
MAX_LEVELS = 255  # levels a category keeps; rarer ones share code 0
MIN_COUNT = 2.0  # a level seen less often than this is rare
CLIP = 3.0  # where the smooth clipping saturates
CHUNK = 2**14  # rows that are encoded at once: on the way they take more room
MAX_TOLD = 200  # characters of another library's error
CELLS = 2**20  # that are scaled at once, to learn from them


@dataclass(frozen=True, eq=False)
class Table(Samples):
    """Rows as numbers and codes.

    Parameters
    ----------
    numeric : ndarray of shape (N, F), float32 or float64
        Numeric columns, NaN where missing.
    codes : ndarray of shape (N, G), int64
        Place of each cell in its column's vocabulary; -1 unknown, the vocabulary's
        length where missing.
    """

    numeric: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: np.ndarray) -> Table:
        """The given rows."""
        return Table(self.numeric[rows], self.codes[rows])

    @property
    def keys(self) -> list[np.ndarray]:
        return [self.numeric + 0.0, self.codes]  # + 0.0: -0.0 is 0.0

    def encoder(self, weight: np.ndarray) -> TableEncoder:
        return TableEncoder().fit(self, weight)


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

    owner: str
    categorical_features: Any = "from_dtype"
    names_: list[str] = field(default_factory=list, init=False)
    categorical_: list[int] = field(default_factory=list, init=False)
    vocabularies_: list[np.ndarray] = field(default_factory=list, init=False)

    least_rows = 256  # columns of a frame are read one by one

    def check(
        self, estimator: Any, X: Any, *, reset: bool
    ) -> np.ndarray | pd.DataFrame:
        least = 2 if reset else 1
        X = dense_rows(self.owner, X)
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
                    f"minimum of {wanted} is required by {self.owner}."
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
                f"Column {name!r} of X holds infinity, {self.owner} takes finite "
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
            self.owner,
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


@dataclass(eq=False)
class TableEncoder(Encoder):
    """Encodes tables by the statistics of the rows it was fitted on.

    Numeric columns are scaled by median and quartiles and smoothly clipped into
    (-3, 3); a missing number becomes 0 and sets a column of its own. Two-valued
    columns become -1 and +1. Other categories become codes, of which 0 stands for
    rare and unseen levels; a missing category is a level. Columns that are constant
    on the training rows are left out.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491 (robust scaling, smooth clipping).
    """

    numeric_: np.ndarray = field(init=False)  # places of the numeric columns kept
    unit_: np.ndarray = field(init=False)  # largest absolute number of each
    center_: np.ndarray = field(init=False)
    scale_: np.ndarray = field(init=False)
    two_valued_: np.ndarray = field(init=False)  # places, then their low and high
    bounds_: np.ndarray = field(init=False)
    indicators_: np.ndarray = field(init=False)  # places of columns with gaps
    remaps_: list[tuple[int, _Lookup]] = field(init=False)  # column, its levels
    pairs_: list[tuple[int, _Lookup]] = field(init=False)  # two-valued ones
    cardinalities_: tuple[int, ...] = field(init=False)
    edges_: np.ndarray = field(init=False)

    def fit(self, table: Table, weight: np.ndarray) -> TableEncoder:
        """Learn from the rows of a table, each counting `weight` times."""
        self._fit_numeric(table.numeric, weight)
        self._fit_codes(table.codes, weight)
        levels = np.linspace(0, 1, N_EDGES)
        n_blocks = 1 + len(table) * self.n_numeric // CELLS
        edges = []
        for block in np.array_split(np.arange(self.n_numeric), n_blocks):
            scaled = self._scale(table.numeric[:, self.numeric_[block]], block)
            edges.append(weighted_quantiles(scaled, weight, levels))
        self.edges_ = np.concatenate(edges, axis=1).T.astype(np.float32)
        return self

    @property
    def n_numeric(self) -> int:
        """Numeric columns of the encoded table."""
        return len(self.numeric_)

    @property
    def n_binary(self) -> int:
        """Two-valued columns of the encoded table, at least one if it has no other."""
        n_binary = len(self.two_valued_) + len(self.indicators_) + len(self.pairs_)
        is_empty = not (n_binary or self.n_numeric or self.cardinalities_)
        return n_binary + is_empty

    def transform(self, table: Table) -> np.ndarray:
        """Encode rows: (N, F) in the precision of the table's numbers."""
        n_columns = self.n_numeric + self.n_binary + len(self.cardinalities_)
        encoded = np.empty((len(table), n_columns), dtype=table.numeric.dtype)
        for start in range(0, len(table), CHUNK):
            rows = slice(start, start + CHUNK)
            part = Table(table.numeric[rows], table.codes[rows])
            encoded[rows] = self._transform(part)
        return encoded

    def _transform(self, table: Table) -> np.ndarray:
        numeric = table.numeric
        parts = [self._scale(numeric[:, self.numeric_])]
        parts.append(self._sign(numeric[:, self.two_valued_]))
        parts.append(2.0 * np.isnan(numeric[:, self.indicators_]) - 1)
        parts += [signs[table.codes[:, j]][:, None] for j, signs in self.pairs_]
        if not sum(part.shape[1] for part in parts) + len(self.remaps_):
            parts.append(np.zeros((len(table), 1)))  # nothing varies
        parts += [remap[table.codes[:, j]][:, None] for j, remap in self.remaps_]
        return np.concatenate(parts, axis=1, dtype=numeric.dtype, casting="unsafe")

    def spec(self, **told: Any) -> TaskSpec:
        return TaskSpec(
            **told,
            n_numeric=self.n_numeric,
            n_binary=self.n_binary,
            cardinalities=self.cardinalities_,
            edges=self.edges_,
        )

    def _fit_numeric(self, numeric: np.ndarray, weight: np.ndarray) -> None:
        levels = np.array([0, 0.25, 0.5, 0.75, 1])
        low, q25, q50, q75, high = weighted_quantiles(numeric, weight, levels)
        missing = np.isnan(numeric)
        varies = high > low  # False where all are missing
        inner = (numeric > low) & (numeric < high)
        two_valued = varies & ~inner.any(axis=0)
        self.two_valued_ = np.flatnonzero(two_valued)
        self.bounds_ = np.stack([low[two_valued], high[two_valued]])
        kept = varies & ~two_valued
        self.numeric_ = np.flatnonzero(kept)
        # In units of the largest number, as differences of huge ones overflow.
        self.unit_ = np.maximum(-low, high)[kept]
        marks = np.stack([low, q25, q50, q75, high])[:, kept] / self.unit_
        self.center_ = marks[2]
        quartiles, half_range = marks[3] - marks[1], (marks[4] - marks[0]) / 2
        self.scale_ = np.where(quartiles > 0, quartiles, half_range)
        self.indicators_ = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))

    def _sign(self, kept: np.ndarray) -> np.ndarray:
        """-1 for the lower of two values, +1 for the upper one; 0 where missing."""
        low, high = self.bounds_
        with np.errstate(all="ignore"):  # halves keep huge values finite
            share = (kept / 2 - low / 2) / (high / 2 - low / 2)
        share = np.where(kept >= high, 1.0, np.where(kept <= low, 0.0, share))
        return np.nan_to_num(2 * share - 1)

    def _scale(self, kept: np.ndarray, places: Any = slice(None)) -> np.ndarray:
        """Robust scaling and smooth clipping of some columns; 0 where missing."""
        with np.errstate(all="ignore"):
            z = kept / self.unit_[places]
            z -= self.center_[places]  # in place: this is done for all rows at once
            z /= self.scale_[places]
            np.clip(z, -1e6, 1e6, out=z)
        root = z / CLIP
        root *= root
        root += 1
        z /= np.sqrt(root, out=root)
        return np.nan_to_num(z, copy=False).astype(kept.dtype, copy=False)

    def _fit_codes(self, codes: np.ndarray, weight: np.ndarray) -> None:
        self.remaps_, self.pairs_ = [], []
        cardinalities = []
        for j in range(codes.shape[1]):
            counts = np.bincount(codes[:, j], weight)  # training rows have no unknown
            levels, has_rare = _frequent_levels(counts)
            n_states = len(levels) + has_rare
            if n_states < 2:
                continue
            if n_states == 2:
                self.pairs_.append((j, _Lookup.signs(levels, has_rare)))
            else:
                self.remaps_.append((j, _Lookup.ranks(levels)))
                cardinalities.append(len(levels))
        self.cardinalities_ = tuple(cardinalities)


class _Lookup:
    """Array over codes that answers any code, unknown ones too, with a default."""

    def __init__(self, levels: np.ndarray, values: Iterable[float], other: float):
        self.table = np.full(int(levels.max(initial=0)) + 2, other)
        self.table[levels] = list(values)  # the last slot stays `other`

    def __getitem__(self, codes: np.ndarray) -> np.ndarray:
        within = np.where(codes < len(self.table) - 1, codes, -1)
        return self.table[within]

    def is_level(self, n_words: int) -> np.ndarray:
        """Which words have a code of their own."""
        return self[np.arange(n_words)] != self.table[-1]

    def renumber(self, kept: np.ndarray) -> None:
        """Take the places of the kept words alone; a missing cell follows them."""
        missing = self[np.array([len(kept)])]
        values = self[np.flatnonzero(kept)]
        self.table = np.concatenate([values, missing, self.table[-1:]])

    @classmethod
    def ranks(cls, levels: np.ndarray) -> _Lookup:
        """1, 2, ... for the levels, 0 for any other code."""
        return cls(levels, range(1, len(levels) + 1), 0.0)

    @classmethod
    def signs(cls, levels: np.ndarray, has_rare: bool) -> _Lookup:
        """-1 and +1; any other code is 0, or -1 if rare levels are the second state."""
        return cls(levels, [1.0] if has_rare else [-1.0, 1.0], -1.0 * has_rare)


def _frequent_levels(counts: np.ndarray) -> tuple[np.ndarray, bool]:
    """Codes to keep, ascending, and whether some seen ones are left out."""
    seen = np.flatnonzero(counts > 0)
    frequent = seen[counts[seen] >= MIN_COUNT]
    by_count = frequent[np.argsort(-counts[frequent], kind="stable")]
    levels = np.sort(by_count[:MAX_LEVELS])
    return levels, len(levels) < len(seen)


def weighted_quantiles(
    values: np.ndarray, weight: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Quantiles of each column of (N, F) as if row i stood there weight[i] times.

    The lower empirical quantile; NaN cells are left out. Returns (len(levels), F),
    NaN for a column without a number.
    """
    quantiles = np.full((len(levels), values.shape[1]), np.nan)
    for j in range(values.shape[1]):
        order = np.argsort(values[:, j], kind="stable")  # NaN last
        column = values[order, j]
        n_known = int(np.sum(~np.isnan(column)))
        if not n_known:
            continue
        total = np.cumsum(weight[order[:n_known]])
        # The tolerance keeps sums of weights and counts of repeats on the same row.
        at = np.searchsorted(total, levels * total[-1] * (1 - 1e-12))
        quantiles[:, j] = column[np.minimum(at, n_known - 1)]
    return quantiles
