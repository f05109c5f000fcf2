"""Splits of rows into training and validation rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)

from sknas._validation import reject, short_repr, warn_user

IndexPair = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to validate on

MIN_REPEATS = 10  # repetitions of a row, at least, that a large weight is capped at
MAX_FOLDS = 2**30  # more than the number of rows that fit into memory
HOLDOUT_SHARE = 0.2  # share of rows that a hold-out set validates
ALLOWED_CV = (
    "'auto', an int >= 2, a scikit-learn splitter or an iterable of (train, test) row "
    "indices"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to train on and rows to validate on.

    A row of weight 3 stands for three equal rows, of which two may train and one
    validate: a row can be on both sides, with a share of its weight on each.

    Parameters
    ----------
    train, valid : ndarray of int
        Row indices.
    train_share, valid_share : ndarray of float or float, default=1.0
        Share of each row's weight on that side.
    """

    train: np.ndarray
    valid: np.ndarray
    train_share: np.ndarray | float = 1.0
    valid_share: np.ndarray | float = 1.0


def is_n_folds(cv: Any) -> bool:
    """Return True if `cv` is "auto" or a number of folds, not the user's own splits."""
    return isinstance(cv, str | Integral) and not isinstance(cv, bool)


def check_folds(caller_name: str, cv: Any) -> None:
    """Raise an error if `cv` does not say how to split rows."""
    if is_n_folds(cv):
        is_wrong = cv != "auto" and (isinstance(cv, str) or cv < 2)
    else:
        is_splitter = hasattr(cv, "split") or isinstance(cv, Iterable)
        # Classes of splitters and bytes have a method `split`, too.
        is_wrong = not is_splitter or isinstance(cv, type | bytes | bytearray)
    if is_wrong:
        reject(caller_name, "cv", cv, ALLOWED_CV)


def user_splits(
    caller_name: str,
    cv: Any,
    X: Any,
    y: np.ndarray,
    groups: np.ndarray | None,
    weighted: np.ndarray,
) -> list[IndexPair]:
    """Return the splits of a user's splitter or iterable, without rows of weight 0.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    cv : splitter or iterable of (train, test)
        Splits all rows given to `fit`.
    X, y, groups : array-like of shape (n_samples, ...)
        Arguments of the splitter.
    weighted : ndarray of bool of shape (n_samples,)
        True for rows of weight > 0; the returned splits index these rows alone.
    """
    new_index = np.cumsum(weighted) - 1
    splits = []
    if not hasattr(cv, "split"):
        cv = _index_pairs(caller_name, cv, len(weighted))
    for pair in check_cv(cv).split(X, y, groups):
        train, test = (_as_indices(rows, len(weighted)) for rows in pair)
        kept_train, kept_test = train[weighted[train]], test[weighted[test]]
        if len(kept_train) and len(kept_test):
            splits.append((new_index[kept_train], new_index[kept_test]))
    if not splits:
        raise ValueError(
            f"The splits of cv={short_repr(cv)} leave no rows to train or to validate "
            "on, give splits with both."
        )
    return splits


def _index_pairs(caller_name: str, cv: Any, n_rows: int) -> list[IndexPair]:
    """Return an iterable of (train, test), indices or masks, as row indices."""
    pairs = cv
    try:
        pairs = list(cv)
        return [(_as_indices(a, n_rows), _as_indices(b, n_rows)) for a, b in pairs]
    except (TypeError, ValueError, IndexError):
        reject(caller_name, "cv", pairs, ALLOWED_CV)


def _as_indices(rows: Any, n_rows: int) -> np.ndarray:
    """Return row indices of indices or a mask."""
    rows = np.asarray(rows)  # an empty list becomes an array of floats
    return np.arange(n_rows)[rows if len(rows) else rows.astype(int)]


def make_splits(
    caller_name: str,
    cv: Any,
    y: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray | None,
    stratify: bool,
    n_folds: int,
    seed: int,
) -> list[Split]:
    """Return shuffled folds, stratified by class, that never split a group.

    A row is repeated as often as its weight says before rows are split. With
    ``cv="auto"`` there are `n_folds`, at most one per row. Classes with fewer
    rows than folds are in the training rows of every fold and validated by none, with
    one warning.

    Raises
    ------
    InvalidParameterError
        If there are fewer rows (or groups) than an explicit `cv` asks for.
    """
    n_folds = n_folds if cv == "auto" else int(cv)
    noun = "rows" if groups is None else "groups"
    max_repeats = max(2 * min(n_folds, MAX_FOLDS), MIN_REPEATS)
    counts = np.clip(weight, 1, max_repeats).astype(int)
    rows = np.repeat(np.arange(len(y)), counts)  # (R,), each row `counts` times
    y, groups = y[rows], None if groups is None else groups[rows]
    n_groups = len(rows) if groups is None else len(np.unique(groups))
    if cv != "auto" and n_groups < n_folds:
        reject(caller_name, "cv", cv, f"at most the number of {noun}, {n_groups}")
    if n_groups < 2:
        raise ValueError(
            f"There must be at least 2 {noun} to train and to validate on, got 1."
        )
    largest = int(np.bincount(y).max()) if stratify else n_folds
    if cv != "auto" and largest < n_folds:
        allowed = f"at most the rows of the largest class, {largest}"
        reject(caller_name, "cv", cv, allowed)
    n_folds = min(n_folds, n_groups, max(2, largest))
    splits = []
    for _, validated in _split_repeated(y, groups, stratify, n_folds, seed):
        share = np.bincount(rows[validated], minlength=len(counts)) / counts
        train, valid = np.flatnonzero(share < 1), np.flatnonzero(share > 0)
        splits.append(Split(train, valid, 1 - share[train], share[valid]))
    return splits


def _split_repeated(
    y: np.ndarray, groups: np.ndarray | None, stratify: bool, n_folds: int, seed: int
) -> list[IndexPair]:
    """Return splits of rows that count once each."""
    all_rows = rows = np.arange(len(y))
    if stratify:
        group_of = all_rows if groups is None else groups
        is_rare = _find_rare_classes(y, max(n_folds, 2))
        # Exclude whole groups, so that none is split.
        rows = np.flatnonzero(~np.isin(group_of, group_of[is_rare]))
        n_groups = len(np.unique(group_of[rows]))
        if n_groups >= 2:
            n_folds = min(n_folds, n_groups)
        else:  # all classes are rare: better to validate them than nothing
            stratify, rows = False, all_rows
    stratify = stratify and _can_stratify(y[rows], n_folds)
    splitter = _splitter(n_folds, stratify, groups is not None, seed)
    groups = None if groups is None else groups[rows]
    with warnings.catch_warnings():
        # scikit-learn would warn of rare classes a second time.
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(splitter.split(rows, y[rows] if stratify else None, groups))
    return [(rows[train], rows[valid]) for train, valid in pairs]


def _can_stratify(y: np.ndarray, n_folds: int) -> bool:
    """Return True if each class can be on both sides of each split."""
    if n_folds == 1:
        return len(np.unique(y)) <= HOLDOUT_SHARE * len(y)
    return int(np.bincount(y).max()) >= n_folds


def _find_rare_classes(y: np.ndarray, min_count: int) -> np.ndarray:
    """Return a mask of the rows of classes with fewer than `min_count`, and warn."""
    counts = np.bincount(y)
    rare = np.flatnonzero((counts > 0) & (counts < min_count))
    if len(rare):
        warn_user(
            f"{len(rare)} of {np.count_nonzero(counts)} classes have fewer than "
            f"{min_count} rows: they are trained on, but no fold validates them."
        )
    return np.isin(y, rare)


def _splitter(n_folds: int, stratify: bool, grouped: bool, seed: int) -> Any:
    if n_folds == 1:
        if grouped:
            return GroupShuffleSplit(1, test_size=HOLDOUT_SHARE, random_state=seed)
        cls = StratifiedShuffleSplit if stratify else ShuffleSplit
        return cls(1, test_size=HOLDOUT_SHARE, random_state=seed)
    if grouped:
        cls = StratifiedGroupKFold if stratify else GroupKFold
    else:
        cls = StratifiedKFold if stratify else KFold
    return cls(n_folds, shuffle=True, random_state=seed)
