"""Tables as numbers and codes, and their encoding as one float array.

Two steps keep the statistics of a fold from its validation rows: a `TableReader` learns
the layout once (which column is numeric, which categories occur) and turns any
container into a `RawTable`; a `TableEncoder` learns statistics (scale, quantiles, which
categories are frequent) from the training rows of one fold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sknas._data.reader import Encoder, RawRows
from sknas._problem import TaskSpec

N_EDGES = 49  # quantiles of a numeric column; they bound 48 bins, divisible by 8 and 16
MAX_LEVELS = 255  # categories of a column, the most frequent, with a code each
MIN_COUNT = 2.0  # weight below which a category is rare
CLIP = 3.0  # absolute value that smooth clipping never reaches
CHUNK_ROWS = 2**14  # rows encoded at once, which bounds the memory of temporaries
CHUNK_CELLS = 2**20  # cells scaled at once in `fit`


@dataclass(frozen=True, eq=False)
class RawTable(RawRows):
    """Rows of a table as numbers and codes.

    Parameters
    ----------
    numeric : ndarray of shape (N, F), float32 or float64
        Numeric columns, NaN where missing.
    codes : ndarray of shape (N, G), int64
        Code of each cell in the vocabulary of its column; -1 where unseen, -2 where
        pruned, the number of categories where missing.
    """

    numeric: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: np.ndarray) -> RawTable:
        """Return the given rows."""
        return RawTable(self.numeric[rows], self.codes[rows])

    @property
    def keys(self) -> list[np.ndarray]:
        return [self.numeric + 0.0, self.codes]  # + 0.0 turns -0.0 into 0.0

    def encoder(self, weight: np.ndarray) -> TableEncoder:
        return TableEncoder().fit(self, weight)


class TableEncoder(Encoder):
    """Encodes tables with the statistics of the rows it was fitted on.

    Numeric columns are scaled by median and quartiles and smoothly clipped into
    (-3, 3); a missing number becomes 0 and sets an indicator column. Two-valued columns
    become -1 and +1. Other categories become codes, where 0 stands for rare and unseen
    levels; missing is a level. Columns that are constant on the training rows are
    dropped.

    Attributes
    ----------
    numeric_ : ndarray of int
        Indices of the numeric columns that are scaled.
    max_abs_, center_, scale_ : ndarray of float
        Largest absolute value of each, then median and spread divided by it.
    two_valued_ : ndarray of int
        Indices of the numeric columns that have two values.
    bounds_ : ndarray of shape (2, n_two_valued)
        Their lower and upper value.
    indicators_ : ndarray of int
        Indices of the numeric columns with some values missing.
    category_codes_ : list of (int, _Lookup)
        Index of each category with more than two states, and its codes.
    category_signs_ : list of (int, _Lookup)
        Index of each category with two states, and its signs.
    cardinalities_ : tuple of int
        Levels of each column in `category_codes_`.
    edges_ : ndarray of shape (n_numeric, 49)
        Quantiles of the scaled numeric columns.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart: Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data. arXiv:2407.04491 (robust scaling, smooth clipping).
    """

    def fit(self, table: RawTable, weight: np.ndarray) -> TableEncoder:
        """Learn from the rows of a table, each counting `weight` times."""
        self._fit_numeric(table.numeric, weight)
        self._fit_codes(table.codes, weight)
        levels = np.linspace(0, 1, N_EDGES)
        n_chunks = 1 + len(table) * self.n_numeric // CHUNK_CELLS
        edges = []
        for chunk in np.array_split(np.arange(self.n_numeric), n_chunks):
            scaled = self._scale(table.numeric[:, self.numeric_[chunk]], chunk)
            edges.append(weighted_quantiles(scaled, weight, levels))
        self.edges_ = np.concatenate(edges, axis=1).T.astype(np.float32)
        return self

    @property
    def n_numeric(self) -> int:
        """Number of numeric columns of the encoded table."""
        return len(self.numeric_)

    @property
    def n_binary(self) -> int:
        """Number of two-valued columns of the encoded table, 1 if it has no others."""
        n_binary = len(self.two_valued_) + len(self.indicators_)
        n_binary += len(self.category_signs_)
        is_empty = not (n_binary or self.n_numeric or self.cardinalities_)
        return n_binary + is_empty

    def transform(self, table: RawTable) -> np.ndarray:
        """Return encoded rows (N, F), in the precision of the numeric columns."""
        n_columns = self.n_numeric + self.n_binary + len(self.cardinalities_)
        encoded = np.empty((len(table), n_columns), dtype=table.numeric.dtype)
        for start in range(0, len(table), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            chunk = RawTable(table.numeric[rows], table.codes[rows])
            encoded[rows] = self._transform(chunk)
        return encoded

    def _transform(self, table: RawTable) -> np.ndarray:
        numeric, codes = table.numeric, table.codes
        parts = [self._scale(numeric[:, self.numeric_])]
        parts.append(self._sign(numeric[:, self.two_valued_]))
        parts.append(2.0 * np.isnan(numeric[:, self.indicators_]) - 1)
        parts += [lookup[codes[:, j]][:, None] for j, lookup in self.category_signs_]
        if not sum(part.shape[1] for part in parts) + len(self.category_codes_):
            parts.append(np.zeros((len(table), 1)))  # every column is constant
        parts += [lookup[codes[:, j]][:, None] for j, lookup in self.category_codes_]
        return np.concatenate(parts, axis=1, dtype=numeric.dtype, casting="unsafe")

    def spec(self, **options: Any) -> TaskSpec:
        return TaskSpec(
            **options,
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
        is_binary = varies & ~inner.any(axis=0)
        self.two_valued_ = np.flatnonzero(is_binary)
        self.bounds_ = np.stack([low[is_binary], high[is_binary]])
        is_scaled = varies & ~is_binary
        self.numeric_ = np.flatnonzero(is_scaled)
        # Divide by the largest number first: differences of huge numbers overflow.
        self.max_abs_ = np.maximum(-low, high)[is_scaled]
        quantiles = np.stack([low, q25, q50, q75, high])[:, is_scaled] / self.max_abs_
        low, q25, self.center_, q75, high = quantiles
        iqr, half_range = q75 - q25, (high - low) / 2
        self.scale_ = np.where(iqr > 0, iqr, half_range)
        self.indicators_ = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))

    def _sign(self, values: np.ndarray) -> np.ndarray:
        """Return -1 for the lower of two values, +1 for the upper, 0 where missing."""
        low, high = self.bounds_
        with np.errstate(all="ignore"):  # halves of huge values do not overflow
            share = (values / 2 - low / 2) / (high / 2 - low / 2)
        share = np.where(values >= high, 1.0, np.where(values <= low, 0.0, share))
        return np.nan_to_num(2 * share - 1)

    def _scale(self, values: np.ndarray, columns: Any = slice(None)) -> np.ndarray:
        """Scale and smoothly clip some numeric columns; missing values become 0."""
        with np.errstate(all="ignore"):
            z = values / self.max_abs_[columns]
            z -= self.center_[columns]  # in place, to save memory
            z /= self.scale_[columns]
            np.clip(z, -1e6, 1e6, out=z)
        root = z / CLIP
        root *= root
        root += 1
        z /= np.sqrt(root, out=root)
        return np.nan_to_num(z, copy=False).astype(values.dtype, copy=False)

    def _fit_codes(self, codes: np.ndarray, weight: np.ndarray) -> None:
        self.category_codes_: list[tuple[int, _Lookup]] = []
        self.category_signs_: list[tuple[int, _Lookup]] = []
        cardinalities = []
        for j in range(codes.shape[1]):
            # No code is -1: the vocabulary holds all categories of the training rows.
            counts = np.bincount(codes[:, j], weight)
            levels, has_rare = _frequent_levels(counts)
            n_states = len(levels) + has_rare
            if n_states < 2:
                continue
            if n_states == 2:
                # Two levels are -1 and +1, any other code 0; a single level is +1, any
                # other code -1.
                signs = [1.0] if has_rare else [-1.0, 1.0]
                lookup = _Lookup(levels, signs, -1.0 * has_rare)
                self.category_signs_.append((j, lookup))
            else:
                ranks = range(1, len(levels) + 1)
                self.category_codes_.append((j, _Lookup(levels, ranks, 0.0)))
                cardinalities.append(len(levels))
        self.cardinalities_ = tuple(cardinalities)


class _Lookup:
    """Values of codes, with a default for every code that is not a level.

    Parameters
    ----------
    levels : ndarray of int
        Codes with a value of their own.
    values : iterable of float
        One per level.
    default : float
        Value of all other codes.
    """

    def __init__(self, levels: np.ndarray, values: Iterable[float], default: float):
        self.values = np.full(int(levels.max(initial=0)) + 2, default)
        self.values[levels] = list(values)  # the last entry stays the default

    def __getitem__(self, codes: np.ndarray) -> np.ndarray:
        is_within = (codes >= 0) & (codes < len(self.values) - 1)
        within = np.where(is_within, codes, -1)
        return self.values[within]

    def is_level(self, n_categories: int) -> np.ndarray:
        """Return a mask (n_categories,) of codes whose value is not the default."""
        return self[np.arange(n_categories)] != self.values[-1]

    def renumber(self, is_kept: np.ndarray) -> None:
        """Renumber the codes for a vocabulary reduced to the kept categories."""
        missing = self[np.array([len(is_kept)])]  # its code is the vocabulary's length
        values = self[np.flatnonzero(is_kept)]
        self.values = np.concatenate([values, missing, self.values[-1:]])


def _frequent_levels(counts: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the codes to keep, ascending, and True if other codes occur too."""
    seen = np.flatnonzero(counts > 0)
    frequent = seen[counts[seen] >= MIN_COUNT]
    by_count = frequent[np.argsort(-counts[frequent], kind="stable")]
    levels = np.sort(by_count[:MAX_LEVELS])
    return levels, len(levels) < len(seen)


def weighted_quantiles(
    values: np.ndarray, weight: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Return quantiles (len(levels), F) of the columns of `values` (N, F).

    Row i counts ``weight[i]`` times. Quantiles are lower empirical ones of the values
    that are not NaN, and NaN for a column without any.
    """
    quantiles = np.full((len(levels), values.shape[1]), np.nan)
    for j in range(values.shape[1]):
        order = np.argsort(values[:, j], kind="stable")  # NaN last
        column = values[order, j]
        n_known = int(np.sum(~np.isnan(column)))
        if not n_known:
            continue
        total = np.cumsum(weight[order[:n_known]])
        # The tolerance makes weights and repeated rows find the same row.
        indices = np.searchsorted(total, levels * total[-1] * (1 - 1e-12))
        quantiles[:, j] = column[np.minimum(indices, n_known - 1)]
    return quantiles
