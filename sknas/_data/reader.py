"""The roles of this room, whatever X holds: what was read, a reader, an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sknas._problem import TaskSpec
from sknas._validation import brief


class RawRows(ABC):
    """Rows that were read, but not encoded: a `Table` or `Images`."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> RawRows:
        """The given rows."""

    @property
    @abstractmethod
    def keys(self) -> list[np.ndarray]:
        """All that tells rows apart, as `deduplicate` reads it."""

    @abstractmethod
    def encoder(self, weight: np.ndarray) -> Encoder:
        """An encoder that learnt from these rows, each counting `weight` times."""


class Reader(ABC):
    """Learns the layout of X once, and reads any container by it."""

    caller_name: str  # name of the estimator, for messages
    least_rows: int  # that are read at once, where X is read in parts
    sides: tuple[int, int] | None = None  # height and width, where rows are images

    @abstractmethod
    def check(self, estimator: Any, X: Any, *, reset: bool) -> Any:
        """X as an array or a pandas frame that can be read.

        Parameters
        ----------
        estimator : BaseNAS
            Gets or has ``n_features_in_`` and ``feature_names_in_``.
        X : array-like or data frame
            What the user gave.
        reset : bool
            Whether it is the X of `fit`.
        """

    @abstractmethod
    def fit(self, X: Any) -> Reader:
        """Learn the layout."""

    @abstractmethod
    def read(self, X: Any) -> RawRows:
        """Read rows with the layout learnt."""

    @abstractmethod
    def forget(self, encoders: Sequence[Any]) -> None:
        """Drop what no encoder tells apart; what is predicted stays the same."""


class Encoder(ABC):
    """Encodes rows by the statistics of those that it learnt from."""

    @abstractmethod
    def transform(self, samples: Any) -> np.ndarray:
        """Encode rows: an array that a network reads."""

    @abstractmethod
    def spec(self, **told: Any) -> TaskSpec:
        """The task of a network that reads encoded rows, with all else as told."""


def n_dimensions(X: Any) -> int:
    """Dimensions of an array, a frame or nested lists; 0 of what is none of them."""
    n_lists = 0
    while isinstance(X, list | tuple) and len(X):
        X, n_lists = X[0], n_lists + 1
    return n_lists + getattr(X, "ndim", 0)


def dense_rows(caller_name: str, X: Any) -> Any:
    """X without its rows being read, a frame of polars as one of pandas.

    Raises
    ------
    TypeError
        If it is sparse or lazy.
    ValueError
        If two columns of a frame have the same name.
    """
    if sparse.issparse(X):
        raise TypeError(
            f"{caller_name} does not take sparse X, give a dense array: X.toarray()."
        )
    if hasattr(X, "collect") and hasattr(X, "lazy"):
        raise TypeError("X is a lazy frame, give its rows: X.collect().")
    if isinstance(X, pd.DataFrame) and not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise ValueError(
            f"Columns of X must have different names, {brief(twice)} is there more "
            "than once: rename them."
        )
    if not isinstance(X, pd.DataFrame) and hasattr(X, "get_column"):  # polars
        return pd.DataFrame({name: X.get_column(name).to_numpy() for name in X.columns})
    return X
