"""Which rows train and which rows validate."""

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

from sknas._validation import brief, reject, warn_user


@dataclass(frozen=True, eq=False)
class Split:
    """One way to train and validate.

    A row of weight 3 stands for three equal rows, of which two may train and one
    validate: a row can be on both sides, with a share of its weight on each.

    Parameters
    ----------
    train, valid : ndarray of int
        Row numbers.
    train_share, valid_share : ndarray of float or float, default=1.0
        Share of each row's weight that is there.
    """

    train: np.ndarray
    valid: np.ndarray
    train_share: np.ndarray | float = 1.0
    valid_share: np.ndarray | float = 1.0


Pair = tuple[np.ndarray, np.ndarray]  # row numbers to train on, to validate on

MIN_UNITS = 5  # a row of large weight is dealt in twice as many parts at the least
MAX_FOLDS = 2**30  # more than rows that fit into memory
HOLDOUT = 0.2  # share of rows validated where there is one split


def is_split_by_us(cv: Any) -> bool:
    """Whether `cv` is a number of folds, which we make ourselves."""
    return isinstance(cv, str | Integral) and not isinstance(cv, bool)


def check_folds(caller_name: str, cv: Any) -> None:
    """Refuse a `cv` that is no way to split rows."""
    if is_split_by_us(cv):
        is_wrong = cv != "auto" and (isinstance(cv, str) or cv < 2)
    else:
        is_splitter = hasattr(cv, "split") or isinstance(cv, Iterable)
        # These have a method of that name too.
        is_wrong = not is_splitter or isinstance(cv, type | bytes | bytearray)
    if is_wrong:
        reject(caller_name, "cv", cv, _ALLOWED)


_ALLOWED = (
    "'auto', an int >= 2, a scikit-learn splitter or an iterable of (train, test) row "
    "numbers"
)


def given_splits(
    caller_name: str,
    cv: Any,
    X: Any,
    y: np.ndarray,
    groups: np.ndarray | None,
    kept: np.ndarray,
) -> list[Pair]:
    """Splits of a user's splitter or iterable, on the rows that are kept.

    Parameters
    ----------
    cv : splitter or iterable of (train, test)
        Splits all rows given to `fit`.
    X, y, groups : array-like of shape (n_samples, ...)
        What the splitter reads.
    kept : ndarray of bool of shape (n_samples,)
        Rows with a weight; the others drop out of the splits.
    """
    number = np.cumsum(kept) - 1  # of a kept row among the kept ones
    splits = []
    if not hasattr(cv, "split"):
        cv = _pairs(caller_name, cv, len(kept))
    for pair in check_cv(cv).split(X, y, groups):
        train, test = (_places(rows, len(kept)) for rows in pair)
        splits.append((number[train[kept[train]]], number[test[kept[test]]]))
    if not any(len(train) and len(test) for train, test in splits):
        raise ValueError(
            f"The splits of cv={brief(cv)} leave no rows to train or to validate on, "
            "give splits with both."
        )
    return [(train, test) for train, test in splits if len(train) and len(test)]


def _pairs(caller_name: str, cv: Any, n_rows: int) -> list[Pair]:
    """Row numbers of an iterable of (train, test), which may be masks."""
    pairs = cv
    try:
        pairs = list(cv)
        return [(_places(a, n_rows), _places(b, n_rows)) for a, b in pairs]
    except (TypeError, ValueError, IndexError):
        reject(caller_name, "cv", pairs, _ALLOWED)
        raise


def _places(rows: Any, n_rows: int) -> np.ndarray:
    """Row numbers, from numbers or a mask; none from an empty list."""
    rows = np.asarray(rows)
    return np.arange(n_rows)[rows if len(rows) else rows.astype(int)]


def made_splits(
    caller_name: str,
    cv: Any,
    y: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray | None,
    stratify: bool,
    n_folds: int,
    seed: int,
) -> list[Split]:
    """Shuffled folds, stratified by class and whole by group.

    A row is dealt to the folds as often as its weight says, as if its repetitions
    were rows of their own. With ``cv="auto"`` there are `n_folds`, or as many as there
    are rows. Classes with fewer rows than folds are trained on in every fold and
    validated on in none, with one warning.

    Raises
    ------
    InvalidParameterError
        If there are fewer rows (or groups) than an explicit `cv` asks for.
    """
    n_folds = n_folds if cv == "auto" else int(cv)
    most = 2 * max(min(n_folds, MAX_FOLDS), MIN_UNITS)
    counts = np.clip(weight, 1, most).astype(int)
    rows = np.repeat(np.arange(len(y)), counts)  # (units,)
    dealt = None if groups is None else groups[rows]
    pairs = _deal(caller_name, cv, y[rows], dealt, stratify, n_folds, seed)
    splits = []
    for _, valid in pairs:
        share = np.bincount(rows[valid], minlength=len(y)) / counts
        inside, outside = np.flatnonzero(share < 1), np.flatnonzero(share > 0)
        splits.append(Split(inside, outside, 1 - share[inside], share[outside]))
    return splits


def _deal(
    caller_name: str,
    cv: Any,
    y: np.ndarray,
    groups: np.ndarray | None,
    stratify: bool,
    n_folds: int,
    seed: int,
) -> list[Pair]:
    """The splits, of units that each count once."""
    everything = np.ones(len(y), dtype=bool)
    units = _count_units(everything, groups)
    what = "rows" if groups is None else "groups"
    if cv != "auto" and units < n_folds:
        reject(caller_name, "cv", cv, f"at most the number of {what}, {units}")
    n_folds = min(n_folds, units)
    if units < 2:
        raise ValueError(
            f"There must be at least 2 {what} to train and to validate on, got 1."
        )
    validated = everything
    if stratify:
        n_folds, validated = _without_rare(caller_name, y, n_folds, cv)
        if groups is not None:  # no group is split, not even by a rare class
            validated &= ~np.isin(groups, groups[~validated])
    units = _count_units(validated, groups)
    if units < 2:  # all classes are rare: to validate them is better than nothing
        stratify, validated = False, everything
        units = _count_units(validated, groups)
    n_folds = min(n_folds, units)
    rows = np.flatnonzero(validated)
    stratify = stratify and _has_room(y[rows], n_folds)
    splitter = _splitter(n_folds, stratify, groups is not None, seed)
    groups = None if groups is None else groups[rows]
    with warnings.catch_warnings():
        # A class of fewer rows than folds in some group-wise folds: warned above.
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(splitter.split(rows, y[rows] if stratify else None, groups))
    return [(rows[train], rows[valid]) for train, valid in pairs]


def _has_room(y: np.ndarray, n_folds: int) -> bool:
    """Whether each class can be on either side of each split."""
    if n_folds == 1:
        return len(np.unique(y)) <= HOLDOUT * len(y)
    return int(np.bincount(y).max()) >= n_folds


def _count_units(chosen: np.ndarray, groups: np.ndarray | None) -> int:
    """Rows, or groups, that folds may be made of."""
    if groups is None:
        return int(chosen.sum())
    return len(np.unique(groups[chosen]))


def _without_rare(
    caller_name: str, y: np.ndarray, n_folds: int, cv: Any
) -> tuple[int, np.ndarray]:
    """Folds that fit the classes, and the rows that may be validated."""
    counts = np.bincount(y)
    if cv == "auto":
        n_folds = int(min(n_folds, max(2, counts.max())))
    elif counts.max() < n_folds:
        most = f"at most the rows of the largest class, {counts.max()}"
        reject(caller_name, "cv", cv, most)
    least = max(n_folds, 2)
    rare = np.flatnonzero((counts > 0) & (counts < least))
    if len(rare):
        warn_user(
            f"{len(rare)} of {np.count_nonzero(counts)} classes have fewer than "
            f"{least} rows: they are trained on, but no fold validates them."
        )
    return n_folds, ~np.isin(y, rare)


def _splitter(n_folds: int, stratify: bool, grouped: bool, seed: int) -> Any:
    if n_folds == 1:
        if grouped:
            return GroupShuffleSplit(1, test_size=HOLDOUT, random_state=seed)
        cls = StratifiedShuffleSplit if stratify else ShuffleSplit
        return cls(1, test_size=HOLDOUT, random_state=seed)
    if grouped:
        cls = StratifiedGroupKFold if stratify else GroupKFold
    else:
        cls = StratifiedKFold if stratify else KFold
    return cls(n_folds, shuffle=True, random_state=seed)
