"""Targets: class labels and regression values <-> what the loss sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_array, column_or_1d

MAX_TARGET = 1e150  # regression targets beyond have no squared error
MAX_SCALED = 1e15  # the square of a larger one is infinite in single precision
MAX_ROUNDING = 1e-4  # of the range of values, that single precision may cost


@dataclass(eq=False)
class TargetReader:
    """Turns y into class codes (N,) int64, labels (N, C) or values (N, C) float.

    Parameters
    ----------
    is_classifier : bool
        Whether y holds classes.
    """

    is_classifier: bool
    kind_: str = field(default="", init=False)
    classes_: Any = field(default=None, init=False)
    n_outputs_: int = field(default=0, init=False)
    is_column_: bool = field(default=False, init=False)  # y was one column

    def fit_read(self, y: Any) -> np.ndarray:
        """Learn the kind of target and read it.

        Raises
        ------
        ValueError
            If y has missing values, is continuous for a classifier, or has several
            outputs of several classes.
        """
        y = _plain(y)
        return self._read_classes(y) if self.is_classifier else self._read_values(y)

    def _read_values(self, y: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(y):
            raise ValueError(
                "Complex data not supported: give the real and the imaginary part of y "
                "as two columns."
            )
        try:
            with np.errstate(over="ignore"):  # what no double can hold is infinity
                y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        except OverflowError:  # ints of Python's own
            _reject_huge()
        if y.ndim > 2:
            raise ValueError(
                f"y must be of shape (n_samples,) or (n_samples, n_targets), got "
                f"{y.shape}."
            )
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
        is_indicator = type_of_target(y) == "multilabel-indicator"  # of any two numbers
        if is_indicator and np.isin(y, (0, 1)).all():
            self.kind_ = "multilabel"
            self.n_outputs_ = y.shape[1]
            self.classes_ = [np.array([0, 1]) for _ in range(y.shape[1])]
            return check_array(y, dtype=np.float64, input_name="y")
        if y.ndim == 2:
            raise ValueError(
                "y with several outputs must hold 0 and 1 only (multi-label), fit one "
                "classifier an output for more classes, for example with "
                "sklearn.multioutput.MultiOutputClassifier."
            )
        return self._read_labels(y)

    def _read_labels(self, y: np.ndarray) -> np.ndarray:
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
    """y as an array.

    Raises
    ------
    ValueError
        If it is a list of lists of different lengths.
    """
    try:
        return np.asarray(y)
    except ValueError as error:
        raise ValueError(
            "y must hold one target a row, or as many in each row, got a list of "
            "lists of different lengths."
        ) from error


def _plain(y: Any) -> np.ndarray:
    """y as an array of numpy's own types; missing values are refused."""
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
                y = np.asarray(y.tolist())  # numbers or strings kept as objects
            except ValueError as error:
                raise ValueError(
                    "y must hold a number or a label a row, it holds "
                    f"{type(y.flat[0]).__name__} objects of unequal lengths: give "
                    "several targets as columns."
                ) from error
    return y


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Standardises regression targets, and brings predictions back.

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
        # Relative to the largest distance, squares of huge and tiny values are finite.
        largest = np.abs(y - mean).max(axis=0)
        unit = np.where((high > low) & (largest > 0), largest, 1.0)
        variance = np.average(((y - mean) / unit) ** 2, axis=0, weights=weight)
        std = np.where(variance > 0, unit * np.sqrt(variance), 1.0)
        return cls(mean, std, low, high)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Targets as the loss sees them."""
        with np.errstate(over="ignore"):
            scaled = (y - self.mean) / self.std
        # Rows that the statistics did not see, or hardly, may lie far away.
        return np.clip(scaled, -MAX_SCALED, MAX_SCALED).astype(np.float32)

    @property
    def fits_single(self) -> bool:
        """Whether single precision can hold predictions."""
        return fits_single(np.stack([self.low, self.high]))

    def restore(self, output: np.ndarray) -> np.ndarray:
        """Network outputs (N, C) as target values."""
        values = output.astype(np.float64) * self.std + self.mean
        return np.clip(values, self.low, self.high)


def fits_single(values: np.ndarray) -> bool:
    """Whether single precision still tells the values of each column (N, C) apart."""
    if not len(values):
        return True
    low, high = values.min(axis=0), values.max(axis=0)
    largest = np.maximum(-low, high)
    info = np.finfo(np.float32)
    rounding = np.maximum(info.eps * largest, info.smallest_subnormal)
    unit = np.where(high > low, high - low, largest)
    is_near = (largest < info.max) & (rounding <= MAX_ROUNDING * unit)
    return bool(np.all(is_near | (largest == 0)))


def softmax(output: np.ndarray) -> np.ndarray:
    """Logits (..., C) as class probabilities, each row summing to 1."""
    output = output - output.max(axis=-1, keepdims=True)
    exponents = np.exp(output)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(output: np.ndarray) -> np.ndarray:
    """Logits (N, C) as one probability a label."""
    return expit(output)
