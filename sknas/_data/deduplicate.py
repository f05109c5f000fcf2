"""Equal rows become one row that counts as often as they stood there.

A weight means a repetition: fitting on a row of weight 3 and fitting on the row given
three times is the same computation, bit for bit, because both become the same table
here. It follows that a fit does not depend on the order of rows, and that no row is
validated by a network that saw its copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MAX_TOTAL = 2.0**53  # rows that a double can count one by one


@dataclass(frozen=True, eq=False)
class DeduplicatedRows:
    """How rows were merged.

    Parameters
    ----------
    first : ndarray of shape (M,)
        For each merged row, a row of the original table that holds its values.
    place : ndarray of shape (N,)
        The merged row that each original row went into.
    weight : ndarray of shape (M,)
        Sum of the weights that went in.
    """

    first: np.ndarray
    place: np.ndarray
    weight: np.ndarray


def deduplicate(columns: list[np.ndarray], weight: np.ndarray) -> DeduplicatedRows:
    """Merge rows that are equal in all columns; the result is in canonical order.

    Parameters
    ----------
    columns : list of ndarray of shape (N, F_i) or (N,)
        All that tells rows apart.
    weight : ndarray of shape (N,)
        How often each row counts.

    Returns
    -------
    DeduplicatedRows
        In an order that depends on the values alone.
    """
    total = hash_rows(columns, len(weight))
    _, first, place = np.unique(total, return_index=True, return_inverse=True)
    merged = np.bincount(place, weight, minlength=len(first))
    return DeduplicatedRows(first, place, merged)


def hash_rows(columns: list[np.ndarray], n_rows: int) -> np.ndarray:
    """A number for each row that equal rows share, (N,) of 64 bits.

    Two different rows of a million share one with probability 3e-8.
    """
    total = np.zeros(n_rows, dtype=np.uint64)
    for part in columns:
        if part.ndim == 2 and not part.shape[1]:
            continue
        frame = pd.DataFrame(part)
        hashed = pd.util.hash_pandas_object(frame, index=False, categorize=False)
        total = total * np.uint64(0x9E3779B97F4A7C15) + hashed.to_numpy(np.uint64)
    return total


def check_weight(sample_weight: np.ndarray) -> np.ndarray:
    """Weights as repetitions: those that sum to less than their rows are scaled up.

    Weights that sum to 1 are common too; nothing could be trained on a table of
    one row, so such weights are read as shares.

    Raises
    ------
    ValueError
        If their sum is too large to be counted.
    """
    with np.errstate(over="ignore"):
        total = sample_weight.sum()
    if total > MAX_TOTAL:
        raise ValueError(
            f"Sample weights must sum to at most {MAX_TOTAL:g}, got {total:g}: divide "
            "them by a large number."
        )
    n_rows = np.count_nonzero(sample_weight)
    if total >= n_rows:
        return sample_weight
    shares = sample_weight / sample_weight.max()  # tiny ones have no inverse
    return shares * (n_rows / shares.sum())
