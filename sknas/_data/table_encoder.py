"""Tables: columns of a frame or an array -> one float array a network can read.

Two steps, so that no statistic of a fold sees its validation rows. A `TableReader`
learns the layout once (which column is numeric, which words a column uses) and turns
any container into a `Table` of numbers and codes. A `TableEncoder` learns statistics
(scale, quantiles, which levels are frequent) from the training rows of one fold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sknas._data.reader import Encoder, RawRows
from sknas._problem import TaskSpec

N_EDGES = 49  # quantiles kept of a numeric column: 48 bins, which 8 and 16 divide
MAX_LEVELS = 255  # levels a category keeps; rarer ones share code 0
MIN_COUNT = 2.0  # a level seen less often than this is rare
CLIP = 3.0  # where the smooth clipping saturates
CHUNK = 2**14  # rows that are encoded at once: on the way they take more room
CELLS = 2**20  # that are scaled at once, to learn from them


@dataclass(frozen=True, eq=False)
class Table(RawRows):
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
