"""From X and y to a problem: rows merged, split and encoded fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from sknas._data import RawRows, Reader, TargetReader, TargetScale
from sknas._data.deduplicate import check_weight, deduplicate
from sknas._data.splits import Pair, Split, given_splits, is_split_by_us, made_splits
from sknas._data.target import sigmoid, softmax
from sknas._problem import Fold, Rows
from sknas._validation import as_float, is_word, reject


@dataclass(frozen=True, eq=False)
class Data:
    """Different training rows, each with how often it counts.

    Parameters
    ----------
    x : Samples
        The rows, read but not encoded.
    y : ndarray of shape (N,) or (N, C)
        Class codes, labels or target values.
    weight : ndarray of shape (N,)
        How often each row counts: in encoders, folds and scores.
    loss_weight : ndarray of shape (N,)
        The same times the class weight, with the same sum.
    groups : ndarray of shape (N,) or None
        Rows that no split may part.
    splits : list of (train, test) or None
        The user's own splits; None where the folds are left to us.
    first : ndarray of shape (N,)
        A row of the user's X for each row.
    """

    x: RawRows
    y: np.ndarray
    weight: np.ndarray
    loss_weight: np.ndarray
    groups: np.ndarray | None
    splits: list[Pair] | None
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


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
    """Read X and y, drop rows of no weight, and merge equal rows.

    `reader` and `target` are fitted on the way.
    """
    kept = sample_weight > 0
    splits = None
    if not is_split_by_us(cv):
        splits = given_splits(reader.caller_name, cv, X, np.asarray(y), groups, kept)
    rows = np.flatnonzero(kept)
    if not kept.all():  # many images are not copied for nothing
        X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
    x = reader.fit(X).read(X)
    codes = target.fit_read(y)
    parts = [*x.keys, codes]
    if groups is not None:
        groups = _group_numbers(_safe_indexing(groups, rows))
        parts.append(groups)
    if splits is not None:
        parts.append(_membership(splits, len(rows)))
    merged = deduplicate(parts, check_weight(sample_weight[rows]))
    if splits is not None:
        splits = [
            (np.unique(merged.place[train]), np.unique(merged.place[valid]))
            for train, valid in splits
        ]
    first = merged.first
    codes = codes[first]
    return Data(
        x=x.take(first),
        y=codes,
        weight=merged.weight,
        loss_weight=_loss_weight(class_weight, target, codes, merged.weight),
        groups=None if groups is None else groups[first],
        splits=splits,
        first=rows[first],
    )


def _group_numbers(groups: Any) -> np.ndarray:
    """The group of each row as a number."""
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise ValueError(
            f"groups must hold one label a row, got an array of shape {groups.shape}: "
            "number the groups."
        )
    return pd.factorize(groups, sort=True)[0]


def _membership(splits: list[Pair], n_rows: int) -> np.ndarray:
    """Which part of which split a row is in, (N, 2 * splits); told apart in merging."""
    member = np.zeros((n_rows, 2 * len(splits)), dtype=np.int8)
    for number, parts in enumerate(splits):
        for side, rows in enumerate(parts):
            member[rows, 2 * number + side] = 1
    return member


def _loss_weight(
    class_weight: Any, target: TargetReader, y: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Weights times the class weights, with the same sum."""
    factor = class_factor(class_weight, target, y, weight)
    loss_weight = weight * (factor / np.max(factor))  # the sum of huge ones overflows
    return loss_weight * (weight.sum() / loss_weight.sum())


def class_factor(
    class_weight: Any, target: TargetReader, y: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """The class weight of each row, 1 where there is none."""
    if class_weight is None:
        return np.ones(len(weight))
    caller_name, allowed = (
        "NASClassifier",
        "None, 'balanced' or a dict of label to weight",
    )
    if target.kind_ == "multilabel":
        reject(
            caller_name, "class_weight", class_weight, "None for multi-label targets"
        )
    counts = np.bincount(y, weight, minlength=target.n_outputs_)
    if is_word(class_weight, "balanced"):
        return (weight.sum() / (np.count_nonzero(counts) * counts))[y]
    if not isinstance(class_weight, Mapping):
        reject(caller_name, "class_weight", class_weight, allowed)
    known = target.classes_.tolist()
    strangers = [label for label in class_weight if label not in known]
    if strangers:
        reject(
            caller_name,
            "class_weight",
            class_weight,
            f"a dict with labels of y, {known}",
        )
    factor = np.array([as_float(class_weight.get(label, 1.0)) for label in known])
    is_right = (factor >= 0).all() and np.isfinite(factor).all()
    if not is_right or not factor[y].any():
        reject(caller_name, "class_weight", class_weight, f"{allowed}, weights >= 0")
    return factor[y]


def split_rows(
    data: Data, caller_name: str, cv: Any, target: TargetReader, n_folds: int, seed: int
) -> list[Split]:
    """The user's splits, or folds of our own."""
    if data.splits is not None:
        return [Split(train, valid) for train, valid in data.splits]
    stratify = target.kind_ in ("binary", "multiclass")
    return made_splits(
        caller_name, cv, data.y, data.weight, data.groups, stratify, n_folds, seed
    )


def encode_fold(
    data: Data,
    split: Split,
    target: TargetReader,
    probabilistic: bool,
) -> Fold:
    """Encode a split by the statistics of its training rows alone."""
    train, weight = split.train, data.weight[split.train] * split.train_share
    encoder = _taken(data.x, train).encoder(weight)
    scale, restore = _target_maps(data.y[train], weight, target)
    task = encoder.spec(
        kind=target.kind_,
        n_outputs=target.n_outputs_,
        n_rows=round(float(data.weight.sum())),
        probabilistic=probabilistic,
    )

    def encoded(rows: np.ndarray, share: np.ndarray | float) -> Rows:
        x = encoder.transform(_taken(data.x, rows))
        if x.dtype != np.uint8:  # images of 8 bits stay as small as they are
            x = x.astype(np.float32, copy=False)
        groups = None if data.groups is None else data.groups[rows]
        return Rows(x, scale(data.y[rows]), data.loss_weight[rows] * share, groups)

    inside = encoded(train, split.train_share)
    outside = encoded(split.valid, split.valid_share)
    is_single = not isinstance(scale, TargetScale) or scale.fits_single
    return Fold(task, inside, outside, split.valid, restore, encoder, is_single)


def _taken(x: RawRows, rows: np.ndarray) -> RawRows:
    """Rows in ascending order; all of them are not copied."""
    return x if len(rows) == len(x) else x.take(rows)


def _target_maps(
    y: np.ndarray, weight: np.ndarray, target: TargetReader
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Targets as the loss sees them, and network outputs as predictions."""
    if target.kind_ == "regression":
        scale = TargetScale.fit(y, weight)
        return scale, scale.restore
    if target.kind_ == "multilabel":
        return _as_float32, sigmoid
    return _as_they_are, softmax


def _as_they_are(y: np.ndarray) -> np.ndarray:
    return y


def _as_float32(y: np.ndarray) -> np.ndarray:
    return y.astype(np.float32)
