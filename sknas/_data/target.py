"""Conversion of labels and values for the loss, and of outputs to predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_array, column_or_1d

MAX_TARGET = 1e150  # largest regression target: its square is finite
MAX_SCALED = 1e15  # largest scaled target: its square is finite in single precision
MAX_ROUNDING = 1e-4  # rounding error of single precision, relative to the value range


@dataclass(eq=False)
class TargetReader:
    """Reads y as class codes (N,) int64, labels (N, C) or values (N, C) of float.

    Parameters
    ----------
    is_classifier : bool
        True if y holds classes.

    Attributes
    ----------
    kind_ : {"binary", "multiclass", "multilabel", "regression"}
        Kind of target.
    classes_ : ndarray, list of ndarray or None
        Sorted classes; a list for multi-label targets, None for regression.
    n_outputs_ : int
        Number of classes, labels or regression targets.
    is_column_ : bool
        True if y is a single regression target.
    """

    is_classifier: bool
    classes_: Any = field(default=None, init=False)
    is_column_: bool = field(default=False, init=False)

    def fit_read(self, y: Any) -> np.ndarray:
        """Learn the kind of target and read it.

        Raises
        ------
        ValueError
            If y has missing values, is continuous for a classifier, or has several
            outputs of several classes.
        """
        y = _to_numpy(y)
        return self._read_classes(y) if self.is_classifier else self._read_values(y)

    def _read_values(self, y: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(y):
            raise ValueError(
                "Complex data not supported: give the real and the imaginary part of y "
                "as two columns."
            )
        try:
            with np.errstate(over="ignore"):  # too large for doubles: infinity
                y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        except OverflowError:  # Python integers of any size
            _reject_huge()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if np.abs(y).max() > MAX_TARGET:
            _reject_huge()
        self.is_column_ = y.ndim == 1
        self.kind_ = "regression"
        values = y.reshape(len(y), -1)
        self.n_outputs_ = values.shape[1]
        return values

    def _read_classes(self, y: np.ndarray) -> np.ndarray:
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.dtype == object and y.ndim == 1:
            _reject_mixed(y)
        check_classification_targets(y)
        is_indicator = type_of_target(y) == "multilabel-indicator"
        if is_indicator and np.isin(y, (0, 1)).all():  # it may hold other numbers
            self.kind_ = "multilabel"
            self.n_outputs_ = y.shape[1]
            self.classes_ = [np.array([0, 1]) for _ in range(y.shape[1])]
            return check_array(y, dtype=np.float64, input_name="y")
        if y.ndim == 2:
            raise ValueError(
                "y with several outputs must hold 0 and 1 only (multi-label), fit one "
                "classifier per output for more classes, for example with "
                "sklearn.multioutput.MultiOutputClassifier."
            )
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "y must hold at least two classes to train a classifier, got one "
                f"class, {self.classes_.tolist()[0]!r} "
                "(after rows of zero weight are dropped)."
            )
        self.kind_ = "binary" if len(self.classes_) == 2 else "multiclass"
        self.n_outputs_ = len(self.classes_)
        return codes.astype(np.int64)


def _reject_mixed(y: np.ndarray) -> None:
    try:
        np.unique(y)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in y})
        raise ValueError(
            f"Labels of y must be of one type, got {' and '.join(kinds)}: turn "
            "them all into strings."
        ) from error


def _reject_huge() -> NoReturn:
    raise ValueError(
        f"y holds values beyond {MAX_TARGET:g}, whose squares are infinite: divide it "
        "by a large number."
    )


def as_array(y: Any) -> np.ndarray:
    """Return y as an array.

    Raises
    ------
    ValueError
        If y is a list of lists of different lengths.
    """
    try:
        return np.asarray(y)
    except ValueError as error:
        raise ValueError(
            "y must hold one target per row, or as many in each row, got a list of "
            "lists of different lengths."
        ) from error


def _to_numpy(y: Any) -> np.ndarray:
    """Return y as an array of a numpy dtype; missing values are refused."""
    if isinstance(y, pd.DataFrame) or hasattr(y, "to_pandas"):
        y = y.to_numpy()
    if isinstance(y, pd.Series | pd.api.extensions.ExtensionArray):
        y = pd.Series(y)
        if y.isna().any():
            raise ValueError("Input y contains NaN.")
        y = y.to_numpy(object)
    y = np.asarray(y)
    if y.dtype == object and y.size:
        if pd.isna(y.ravel()).any():
            raise ValueError("Input y contains NaN.")
        if len({type(value) for value in y.ravel()}) == 1:
            try:
                y = np.asarray(y.tolist())  # numbers or strings stored as objects
            except ValueError as error:
                raise ValueError(
                    "y must hold a number or a label per row, it holds "
                    f"{type(y.flat[0]).__name__} objects of unequal lengths: give "
                    "several targets as columns."
                ) from error
    return y


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Standardises regression targets, and scales network outputs back.

    Predictions are clipped to the range of the training targets.

    Parameters
    ----------
    mean, std, low, high : ndarray of shape (C,)
        Statistics of the training targets.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, y: np.ndarray, weight: np.ndarray) -> TargetScale:
        """Learn from targets (N, C), each row counting `weight` times."""
        low, high = y.min(axis=0), y.max(axis=0)
        mean = np.clip(np.average(y, axis=0, weights=weight), low, high)
        # Scaled by the largest, squares of deviations neither overflow nor underflow.
        largest = np.abs(y - mean).max(axis=0)
        scale = np.where((high > low) & (largest > 0), largest, 1.0)
        variance = np.average(((y - mean) / scale) ** 2, axis=0, weights=weight)
        std = np.where(variance > 0, scale * np.sqrt(variance), 1.0)
        return cls(mean, std, low, high)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Return standardised targets, for the loss."""
        with np.errstate(over="ignore"):
            scaled = (y - self.mean) / self.std
        # Validation rows, or rows of little weight, may be far from all others.
        return np.clip(scaled, -MAX_SCALED, MAX_SCALED).astype(np.float32)

    @property
    def fits_single(self) -> bool:
        """True if single precision can hold predictions."""
        return fits_single(np.stack([self.low, self.high]))

    def restore(self, output: np.ndarray) -> np.ndarray:
        """Return network outputs (..., C) as target values."""
        values = output.astype(np.float64) * self.std + self.mean
        return np.clip(values, self.low, self.high)


def fits_single(values: np.ndarray) -> bool:
    """Return True if single precision resolves the values of each column of (N, C)."""
    if not len(values):
        return True
    low, high = values.min(axis=0), values.max(axis=0)
    largest = np.maximum(-low, high)
    info = np.finfo(np.float32)
    rounding = np.maximum(info.eps * largest, info.smallest_subnormal)
    spread = np.where(high > low, high - low, largest)
    is_resolved = (largest < info.max) & (rounding <= MAX_ROUNDING * spread)
    return bool(np.all(is_resolved | (largest == 0)))


def softmax(output: np.ndarray) -> np.ndarray:
    """Return class probabilities of logits (..., C), each row summing to 1."""
    output = output - output.max(axis=-1, keepdims=True)
    exponents = np.exp(output)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(output: np.ndarray) -> np.ndarray:
    """Return one probability per label of logits (..., C)."""
    return expit(output)
