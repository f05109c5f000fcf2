"""Merging of equal rows into one row that counts as often as they occur.

Weights are repetitions: a row of weight 3 and the same row given three times are merged
into the same table, so both fits are equal bit for bit. For the same reason a fit does
not depend on the order of rows, and no network is validated on a copy of a row that it
was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MAX_TOTAL_WEIGHT = 2.0**53  # doubles represent all integers up to this one


@dataclass(frozen=True, eq=False)
class DeduplicatedRows:
    """Result of merging N rows into M.

    Parameters
    ----------
    first : ndarray of shape (M,)
        Index of an original row for each merged row.
    inverse : ndarray of shape (N,)
        Index of the merged row for each original row.
    weight : ndarray of shape (M,)
        Sum of the weights of the rows that were merged.
    """

    first: np.ndarray
    inverse: np.ndarray
    weight: np.ndarray


def deduplicate(columns: list[np.ndarray], weight: np.ndarray) -> DeduplicatedRows:
    """Merge rows that are equal in all columns.

    Parameters
    ----------
    columns : list of ndarray of shape (N, F_i) or (N,)
        Everything that distinguishes rows.
    weight : ndarray of shape (N,)
        How often each row counts.

    Returns
    -------
    DeduplicatedRows
        The merged rows, in an order that depends on their values alone.
    """
    hashes = hash_rows(columns, len(weight))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    total = np.bincount(inverse, weight, minlength=len(first))
    return DeduplicatedRows(first, inverse, total)


def hash_rows(columns: list[np.ndarray], n_rows: int) -> np.ndarray:
    """Return a 64-bit hash of each row, (N,).

    The probability that any two of a million different rows collide is 3e-8.
    """
    hashes = np.zeros(n_rows, dtype=np.uint64)
    for part in columns:
        if part.ndim == 2 and not part.shape[1]:
            continue
        frame = pd.DataFrame(part)
        hashed = pd.util.hash_pandas_object(frame, index=False, categorize=False)
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + hashed.to_numpy(np.uint64)
    return hashes


def check_weight(sample_weight: np.ndarray) -> np.ndarray:
    """Return weights as numbers of repetitions.

    Weights that sum to less than the number of rows, for example to 1, are scaled up
    to that number: a table of one row would leave nothing to train on.

    Raises
    ------
    ValueError
        If their sum is more than `MAX_TOTAL_WEIGHT`.
    """
    with np.errstate(over="ignore"):
        total = sample_weight.sum()
    if total > MAX_TOTAL_WEIGHT:
        raise ValueError(
            f"Sample weights must sum to at most {MAX_TOTAL_WEIGHT:g}, got {total:g}: "
            "divide them by a large number."
        )
    n_rows = np.count_nonzero(sample_weight)
    if total >= n_rows:
        return sample_weight
    shares = sample_weight / sample_weight.max()  # tiny weights have no finite inverse
    return shares * (n_rows / shares.sum())
