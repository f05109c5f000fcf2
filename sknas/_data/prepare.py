"""The line from X and y to encoded folds: read, deduplicate, split, encode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from sknas._data.deduplicate import check_weight, deduplicate
from sknas._data.frames import plain_series
from sknas._data.reader import RawRows, Reader
from sknas._data.splits import IndexPair, Split, is_n_folds, make_splits, user_splits
from sknas._data.target import TargetReader, TargetScale, as_array, sigmoid, softmax
from sknas._problem import Fold, Rows
from sknas._validation import as_float, is_word, reject

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Data:
    """Training rows, all different, and how often each counts.

    Parameters
    ----------
    x : RawRows
        The rows, read but not encoded.
    y : ndarray of shape (N,) or (N, C)
        Class codes, labels or target values.
    weight : ndarray of shape (N,)
        How often each row counts in encoders and folds.
    loss_weight : ndarray of shape (N,)
        Weight times class weight, scaled to the same sum, for losses and scores.
    groups : ndarray of shape (N,) or None
        Group of each row; no split divides a group.
    splits : list of (train, test) or None
        The user's own splits, None if `cv` is a number of folds.
    source_rows : ndarray of shape (N,)
        Index in the user's X of one of the equal rows.
    """

    x: RawRows
    y: np.ndarray
    weight: np.ndarray
    loss_weight: np.ndarray
    groups: np.ndarray | None
    splits: list[IndexPair] | None
    source_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The training data of a fit.

    Parameters
    ----------
    X : array-like or data frame
        The user's X as it was given, for scorers that read it.
    rows : Data
        The rows, deduplicated.
    reader : Reader
        Reads X; fitted.
    target : TargetReader
        Reads y; fitted.
    """

    X: Any
    rows: Data
    reader: Reader
    target: TargetReader


def prepare(
    estimator: Any, reader: Reader, X: Any, y: Any, sample_weight: Any, groups: Any
) -> Prepared:
    """Check and read the training data of an estimator.

    Parameters
    ----------
    estimator : BaseNAS
        Gets ``n_features_in_`` and ``feature_names_in_``.
    reader : Reader
        Reads X; fitted here.
    X, y, sample_weight, groups
        As in `BaseNAS.fit`.

    Raises
    ------
    ValueError
        If they can't be used.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but "
            "the target y is None"
        )
    given, X = X, reader.check(estimator, X, reset=True)
    y = plain_series(y)
    if not hasattr(y, "to_numpy"):  # a series or frame keeps its dtype
        y = as_array(y)
    check_consistent_length(X, y, groups)
    weight = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError(
            "Sample weights must contain at least one non-zero number, all are 0."
        )
    target = TargetReader(estimator._is_classifier)
    rows = read_data(
        X,
        y,
        weight,
        groups,
        reader=reader,
        target=target,
        cv=estimator.cv,
        class_weight=estimator.get_params(deep=False).get("class_weight"),
    )
    return Prepared(_indexable(given, X), rows, reader, target)


def _indexable(given: Any, checked: Any) -> Any:
    """Return X as the user gave it if its rows can be taken, else as it is read."""
    try:
        _safe_indexing(given, np.arange(1))
    except Exception:  # any object that numpy can read may be given
        return checked
    return given


def read_data(
    X: Any,
    y: Any,
    sample_weight: np.ndarray,
    groups: Any,
    *,
    reader: Reader,
    target: TargetReader,
    cv: Any,
    class_weight: Any,
) -> Data:
    """Read X and y, drop rows of weight 0, and merge equal rows.

    This fits `reader` and `target`.
    """
    weighted = sample_weight > 0
    splits = None
    if not is_n_folds(cv):
        splits = user_splits(reader.caller_name, cv, X, np.asarray(y), groups, weighted)
    rows = np.flatnonzero(weighted)
    if not weighted.all():  # don't copy images needlessly
        X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
    x = reader.fit(X).read(X)
    codes = target.fit_read(y)
    columns = [*x.keys, codes]
    if groups is not None:
        groups = _group_codes(_safe_indexing(groups, rows))
        columns.append(groups)
    columns.append(_split_membership(splits or [], len(rows)))
    merged = deduplicate(columns, check_weight(sample_weight[rows]))
    first = merged.first
    return Data(
        x=x.take(first),
        y=codes[first],
        weight=merged.weight,
        loss_weight=_loss_weight(class_weight, target, codes[first], merged.weight),
        groups=None if groups is None else groups[first],
        splits=None if splits is None else _merged_splits(splits, merged.inverse),
        source_rows=rows[first],
    )


def _group_codes(groups: Any) -> np.ndarray:
    """Return the group of each row as an integer."""
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise ValueError(
            "groups must hold one label per row, got an array of shape "
            f"{groups.shape}: give an array of one dimension."
        )
    return pd.factorize(groups, sort=True)[0]


def _split_membership(splits: list[IndexPair], n_rows: int) -> np.ndarray:
    """Return flags (N, 2 * n_splits) of the side of each split that a row is on.

    Equal rows are merged only if their flags are equal.
    """
    is_member = np.zeros((n_rows, 2 * len(splits)), dtype=np.int8)
    for j, rows in enumerate(side for split in splits for side in split):
        is_member[rows, j] = 1
    return is_member


def _merged_splits(splits: list[IndexPair], inverse: np.ndarray) -> list[IndexPair]:
    """Return splits of the rows before merging as splits of the merged rows."""
    return [
        (np.unique(inverse[train]), np.unique(inverse[valid]))
        for train, valid in splits
    ]


def _loss_weight(
    class_weight: Any, target: TargetReader, y: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return weights times class weights, with the same sum."""
    factor = _class_factor(class_weight, target, y, weight)
    loss_weight = weight * (factor / np.max(factor))  # sums of huge factors overflow
    return loss_weight * (weight.sum() / loss_weight.sum())


def _class_factor(
    class_weight: Any, target: TargetReader, y: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return the class weight of each row, 1 if there are none."""
    if class_weight is None:
        return np.ones(len(weight))
    refuse = partial(reject, "NASClassifier", "class_weight", class_weight)
    allowed = "None, 'balanced' or a dict of label to weight"
    if target.kind_ == "multilabel":
        refuse("None for multi-label targets")
    counts = np.bincount(y, weight, minlength=target.n_outputs_)
    if is_word(class_weight, "balanced"):
        return (weight.sum() / (np.count_nonzero(counts) * counts))[y]
    if not isinstance(class_weight, Mapping):
        refuse(allowed)
    labels = target.classes_.tolist()
    if any(label not in labels for label in class_weight):
        refuse(f"a dict with labels of y, {labels}")
    factor = np.array([as_float(class_weight.get(label, 1.0)) for label in labels])
    is_valid = (factor >= 0).all() and np.isfinite(factor).all()
    if not is_valid or not factor[y].any():
        refuse(f"{allowed}, weights >= 0")
    return factor[y]


def split_rows(
    data: Data, caller_name: str, cv: Any, target: TargetReader, n_folds: int, seed: int
) -> list[Split]:
    """Return the user's splits, or shuffled folds."""
    if data.splits is not None:
        return [Split(train, valid) for train, valid in data.splits]
    return make_splits(
        caller_name, cv, data.y, data.weight, data.groups, target.kind_, n_folds, seed
    )


def encode_fold(
    data: Data, split: Split, target: TargetReader, probabilistic: bool
) -> Fold:
    """Encode a split with the statistics of its training rows alone.

    Parameters
    ----------
    probabilistic : bool
        True if the score reads probabilities rather than labels.
    """
    train, weight = split.train, data.weight[split.train] * split.train_share
    encoder = _take(data.x, train).encoder(weight)
    scale, restore, is_single = _target_transforms(data.y[train], weight, target)
    task = encoder.spec(
        kind=target.kind_,
        n_outputs=target.n_outputs_,
        n_rows=round(float(data.weight.sum())),
        probabilistic=probabilistic,
    )

    def encode(rows: np.ndarray, share: np.ndarray | float) -> Rows:
        x = encoder.transform(_take(data.x, rows))
        if x.dtype != np.uint8:  # 8-bit images are not converted to floats
            x = x.astype(np.float32, copy=False)
        groups = None if data.groups is None else data.groups[rows]
        return Rows(x, scale(data.y[rows]), data.loss_weight[rows] * share, groups)

    fitted = encode(train, split.train_share)
    scored = encode(split.valid, split.valid_share)
    return Fold(task, fitted, scored, split.valid, restore, encoder, is_single)


def _take(x: RawRows, rows: np.ndarray) -> RawRows:
    """Return the given rows, ascending; without a copy if they are all rows."""
    return x if len(rows) == len(x) else x.take(rows)


def _target_transforms(
    y: np.ndarray, weight: np.ndarray, target: TargetReader
) -> tuple[Transform, Transform, bool]:
    """Return a transform of targets for the loss, and one of outputs to predictions.

    The third value is True if single precision can hold the predictions.
    """
    if target.kind_ == "regression":
        scale = TargetScale.fit(y, weight)
        return scale, scale.restore, scale.fits_single
    if target.kind_ == "multilabel":
        return _as_float32, sigmoid, True
    return _identity, softmax, True


def _identity(y: np.ndarray) -> np.ndarray:
    return y


def _as_float32(y: np.ndarray) -> np.ndarray:
    return y.astype(np.float32)
