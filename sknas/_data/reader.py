"""Interfaces of raw rows, readers and encoders, for tables and images alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from sknas._data.frames import plain_frame
from sknas._problem import TaskSpec


class RawRows(ABC):
    """Rows that were read but not encoded: a `RawTable` or `RawImages`."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> RawRows:
        """Return the given rows."""

    @property
    @abstractmethod
    def keys(self) -> list[np.ndarray]:
        """Arrays over the rows, equal for two rows exactly if the rows are equal."""

    @abstractmethod
    def encoder(self, weight: np.ndarray) -> Encoder:
        """Return an encoder fitted on these rows, each counting `weight` times."""


class Reader(ABC):
    """Learns the layout of X once, and reads any container by it.

    Attributes
    ----------
    caller_name : str
        Name of the estimator, for messages.
    min_chunk_rows : int
        Minimum number of rows in a chunk, where X is read in chunks.
    image_size : tuple of (int, int) or None
        Height and width if rows are images.
    """

    caller_name: str
    min_chunk_rows: int
    image_size: tuple[int, int] | None = None

    @abstractmethod
    def check(self, estimator: Any, X: Any, *, reset: bool) -> Any:
        """Return X as an array or a pandas frame that can be read.

        Parameters
        ----------
        estimator : BaseNAS
            Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
        X : array-like or data frame
            As given by the user.
        reset : bool
            True in `fit`, False when predicting.
        """

    @abstractmethod
    def fit(self, X: Any) -> Reader:
        """Learn the layout."""

    @abstractmethod
    def read(self, X: Any) -> RawRows:
        """Read rows with the learnt layout."""

    @abstractmethod
    def count_unseen(self, rows: Any) -> np.ndarray:
        """Return counts (2, G) of values that `fit` did not see, and of all values.

        There is a column for each column of categories.
        """

    @abstractmethod
    def warn_unseen(self, counts: np.ndarray, n_rows: int) -> None:
        """Warn, once, if most values of a column were not seen in `fit`.

        Parameters
        ----------
        counts : ndarray of shape (2, G)
            The sum of `count_unseen` over all rows.
        n_rows : int
            The number of rows.
        """

    @abstractmethod
    def prune_vocabulary(self, encoders: Sequence[Any]) -> None:
        """Drop categories that no encoder distinguishes; predictions stay the same."""


class Encoder(ABC):
    """Encodes rows with the statistics of the rows it was fitted on."""

    @abstractmethod
    def transform(self, rows: Any) -> np.ndarray:
        """Return raw rows as the array that a network reads."""

    @abstractmethod
    def spec(self, **options: Any) -> TaskSpec:
        """Return the task on encoded rows; `options` are its other fields."""


def n_dimensions(X: Any) -> int:
    """Return the dimensions of an array, a frame or nested lists, else 0."""
    n_lists = 0
    while isinstance(X, list | tuple) and len(X):
        X, n_lists = X[0], n_lists + 1
    return n_lists + getattr(X, "ndim", 0)


def dense_rows(caller_name: str, X: Any) -> Any:
    """Return a dense X, and any frame as a pandas one of plain columns.

    Raises
    ------
    TypeError
        If X is sparse or lazy.
    ValueError
        If two columns of a frame have the same name.
    """
    if sparse.issparse(X):
        raise TypeError(
            f"{caller_name} does not take sparse X, give a dense array: X.toarray()."
        )
    frame = plain_frame(X)
    return X if frame is None else frame
