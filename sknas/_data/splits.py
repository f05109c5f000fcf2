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

from sknas._data.coverage import Blocks, cover_classes
from sknas._validation import reject, short_repr

IndexPair = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to validate on

MIN_REPEATS = 10  # repetitions of a row, at least, that a large weight is capped at
MAX_FOLDS = 2**30  # more than the number of rows that fit into memory
SINGLE_LABEL = ("binary", "multiclass")  # kinds of targets with classes to stratify
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
    kind: str,
    n_folds: int,
    seed: int,
) -> list[Split]:
    """Return shuffled folds, stratified by class, that never split a group.

    A row is repeated as often as its weight says before rows are split. With
    ``cv="auto"`` there are `n_folds`, at most one per row. Each fold trains and
    validates each class, so rows of a class with fewer rows than folds are validated
    by several folds. A class of one row (or group) is trained on by each fold, and
    validated by none.

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
    largest = int(np.bincount(y).max()) if kind in SINGLE_LABEL else n_folds
    if cv != "auto" and largest < n_folds:
        allowed = f"at most the rows of the largest class, {largest}"
        reject(caller_name, "cv", cv, allowed)
    n_folds = min(n_folds, n_groups, max(2, largest))
    splits = []
    for validated in _split_repeated(y, groups, kind, n_folds, seed):
        share = np.bincount(rows[validated], minlength=len(counts)) / counts
        train, valid = np.flatnonzero(share < 1), np.flatnonzero(share > 0)
        splits.append(Split(train, valid, 1 - share[train], share[valid]))
    return splits


def _split_repeated(
    y: np.ndarray, groups: np.ndarray | None, kind: str, n_folds: int, seed: int
) -> list[np.ndarray]:
    """Return the validated rows of each fold, for rows that count once each."""
    if kind == "regression":
        return _shuffled_folds(y, groups, False, n_folds, seed)
    blocks = Blocks.of(y, groups)
    # Exclude whole groups, so that none is split.
    rows = np.flatnonzero(~blocks.is_pinned[blocks.of_row])
    n_free = int(np.count_nonzero(~blocks.is_pinned))
    if not n_free:  # better to validate classes that a fold does not train than nothing
        return _shuffled_folds(y, groups, False, n_folds, seed)
    folds = [np.arange(len(rows))]
    if n_free > 1:
        kept = None if groups is None else groups[rows]
        stratify, n_folds = kind in SINGLE_LABEL, min(n_folds, n_free)
        folds = _shuffled_folds(y[rows], kept, stratify, n_folds, seed)
    valid = np.zeros((len(folds), len(blocks.sizes)), dtype=bool)
    for own, validated in zip(valid, folds, strict=True):
        own[blocks.of_row[rows[validated]]] = True
    covered = cover_classes(valid, blocks, seed)
    return [np.flatnonzero(own[blocks.of_row]) for own in covered]


def _shuffled_folds(
    y: np.ndarray, groups: np.ndarray | None, stratify: bool, n_folds: int, seed: int
) -> list[np.ndarray]:
    """Return the validated rows of each fold, stratified by class where possible."""
    if stratify and n_folds == 1 and groups is None:
        classes = np.unique(y)
        if len(classes) > HOLDOUT_SHARE * len(y):  # one row of each is more than that
            order = np.random.default_rng(seed).permutation(len(y))
            return [order[np.unique(y[order], return_index=True)[1]]]
    elif stratify:
        stratify = int(np.bincount(y).max()) >= n_folds
    splitter = _splitter(n_folds, stratify, groups is not None, seed)
    with warnings.catch_warnings():
        # scikit-learn warns of rare classes in its own words.
        warnings.simplefilter("ignore", UserWarning)
        pairs = splitter.split(np.arange(len(y)), y if stratify else None, groups)
        return [valid for _, valid in pairs]


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
