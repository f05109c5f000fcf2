"""Scores of predictions that are already there, by any scikit-learn scorer."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.utils import _safe_indexing

from sknas._data import TargetReader
from sknas._data.prepare import Data
from sknas._scoring.metrics import MAX_REPEATED, find_metric
from sknas._validation import did_you_mean, reject

MIN_SHARE = 1e-7  # probability of the right class that the log-loss still tells


def find_scorer(
    caller_name: str, scoring: Any, is_classifier: bool
) -> Callable[..., float]:
    """The scorer of a name or a callable; accuracy or R2 for None.

    Raises
    ------
    InvalidParameterError
        If `scoring` is neither a known name nor callable.
    """
    if scoring is None:
        scoring = "accuracy" if is_classifier else "r2"
    if isinstance(scoring, str):
        if scoring not in get_scorer_names():
            advice = did_you_mean(scoring, get_scorer_names())
            reject(
                caller_name, "scoring", scoring, "a scikit-learn scorer name", advice
            )
        return get_scorer(scoring)
    if not callable(scoring):
        reject(caller_name, "scoring", scoring, "a scorer name, a callable or None")
    return check_scoring(DummyClassifier(), scoring=scoring)


def reads_probabilities(scorer: Callable[..., float]) -> bool:
    """Whether a scorer asks for probabilities or decision values."""
    # The repr names the response method; scorers have no public attribute for it.
    return "response_method=" in repr(scorer) and "'predict'" not in repr(scorer)


def takes_weight(scorer: Callable[..., float]) -> bool:
    """Whether a scorer's metric accepts `sample_weight`."""
    function = getattr(scorer, "_score_func", scorer)
    return "sample_weight" in inspect.signature(function).parameters


class _Predicted(BaseEstimator, ABC):
    """An estimator that has already predicted: what scorers are handed."""

    def __init__(self, predictions: np.ndarray, classes: Any) -> None:
        self.predictions = predictions
        self.classes_ = classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @abstractmethod
    def predict(self, X: Any) -> np.ndarray:
        """What a label scorer reads."""


class _PredictedClasses(ClassifierMixin, _Predicted):
    def predict(self, X: Any) -> np.ndarray:
        return labels(self.predictions, self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        shares = self.predictions.astype(np.float64)
        if isinstance(self.classes_, list):  # one probability a label
            return shares
        return shares / shares.sum(axis=1, keepdims=True)  # 1 in double precision too


class _PredictedValues(RegressorMixin, _Predicted):
    def predict(self, X: Any) -> np.ndarray:
        single = self.predictions.shape[1] == 1
        return self.predictions[:, 0] if single else self.predictions


def labels(probabilities: np.ndarray, classes: Any) -> np.ndarray:
    """The most probable class of each row, or 0 and 1 for each label."""
    if isinstance(classes, list):
        return (probabilities > 0.5).astype(int)
    return classes[probabilities.argmax(axis=1)]


class RowScorer:
    """Scores predictions for some rows of a table.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better.
    X : array-like of shape (N, F) or None
        The rows a scorer of the user's own may want to see; None for named scorers.
    y : ndarray of shape (N,) or (N, C)
        Targets: class labels, 0/1 labels or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    classes : ndarray, list of ndarray or None
        The classes; a list for multi-label targets, None for regression.
    metric : callable or None, default=None
        The scorer for several networks at once, see `sknas._scoring.metrics`.
    codes : ndarray of shape (N,) or (N, C), default=None
        Targets as it reads them.
    """

    def __init__(
        self,
        scorer: Callable[..., float],
        X: Any,
        y: np.ndarray,
        weight: np.ndarray,
        classes: Any,
        metric: Any = None,
        codes: np.ndarray | None = None,
    ) -> None:
        self._metric, self._codes = metric, y if codes is None else codes
        # Of labels by a metric of scikit-learn; one of the user's own has any scale.
        module = getattr(getattr(scorer, "_score_func", None), "__module__", "")
        is_known = module.startswith("sklearn.") and classes is not None
        self.is_piecewise_constant = is_known and not reads_probabilities(scorer)
        self.scorer = scorer
        self.X = X
        self.y = y
        self.weight = weight
        self.classes = classes
        self.reason = ""  # why the last score was undefined
        self._takes_weight = takes_weight(scorer)

    def __call__(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> float:
        """Score of predictions (N', C) for the given row numbers, NaN if undefined.

        `weight` says how often each counts, if not as often as in the whole table.
        """
        self.reason = ""
        weight = self.weight[rows] if weight is None else weight
        weight = np.round(weight, 9)  # shares of whole weights are whole again
        if len(rows) == 1:
            # R2 wants two rows; where there are others, it has all of them together.
            n_times = 2 if len(self.y) == 1 else 1
            return self._score(predictions.repeat(n_times, 0), rows.repeat(n_times), {})
        is_whole = bool(np.all(weight % 1 == 0))
        if np.all(weight == 1):
            return self._score(predictions, rows, {})
        if self._takes_weight:
            score = self._score(predictions, rows, {"sample_weight": weight})
            # Some metrics take weights only to refuse them.
            if not (np.isnan(score) and "sample_weight" in self.reason):
                return score
        repeats = _repeats(weight) if is_whole else np.ones(len(rows), dtype=int)
        return self._score(predictions.repeat(repeats, 0), rows.repeat(repeats), {})

    def many(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores (K,) of the predictions (K, N', C) of several networks."""
        if self._metric is not None and len(rows) > 1:
            weight = self.weight[rows] if weight is None else weight
            told = (predictions, self._codes[rows], np.round(weight, 9))
            return self._metric(*map(torch.from_numpy, told)).numpy()
        return np.array([self(each, rows, weight) for each in predictions])

    def _score(
        self, predictions: np.ndarray, rows: np.ndarray, options: dict[str, Any]
    ) -> float:
        cls = _PredictedValues if self.classes is None else _PredictedClasses
        X = np.empty((len(rows), 1))
        if self.X is not None:
            X = _safe_indexing(self.X, rows)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Undefined metrics are NaN here, and what else a metric has to say it
            # would say for each fold of each trial.
            warnings.simplefilter("ignore", UserWarning)
            try:
                return float(
                    self.scorer(
                        cls(predictions, self.classes), X, self.y[rows], **options
                    )
                )
            except Exception as error:
                # A fold may lack a class that the metric needs; see `score_folds`.
                is_usual = isinstance(error, ValueError)
                kind = "" if is_usual else f"{type(error).__name__}: "
                self.reason = kind + " ".join(str(error).split())
                return float("nan")


class RowLoss:
    """Log-loss or squared error, up to a factor, of predictions for some rows.

    Parameters
    ----------
    y : ndarray of shape (N,) or (N, C)
        Class codes, 0/1 labels, or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    """

    def __init__(self, y: np.ndarray, weight: np.ndarray, kind: str) -> None:
        self.y = y
        self.weight = weight
        self.kind = kind

    def __call__(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Any:
        """Mean loss of predictions (..., N', C) for the given row numbers."""
        y = self.y[rows]
        weight = self.weight[rows] if weight is None else weight
        if self.kind == "regression":
            unit = np.abs(self.y).max() or 1.0  # squares of huge values are finite
            losses = ((predictions / unit - y / unit) ** 2).mean(axis=-1)
        elif self.kind == "multilabel":
            right = np.where(y > 0, predictions, 1 - predictions)
            losses = -np.log(np.maximum(right, MIN_SHARE)).mean(axis=-1)
        else:
            right = predictions[..., np.arange(len(rows)), y]
            losses = -np.log(np.maximum(right, MIN_SHARE))
        return np.average(losses, weights=weight, axis=-1)


def _repeats(weight: np.ndarray) -> np.ndarray:
    """How often to repeat rows for a metric without weights, within memory."""
    repeats = weight.astype(np.int64)
    repeats = repeats // max(int(np.gcd.reduce(repeats)), 1)
    excess = repeats.sum() / MAX_REPEATED
    return np.maximum(repeats / excess, 1).astype(int) if excess > 1 else repeats


def make_scorer(
    scorer: Callable[..., float], scoring: Any, X: Any, data: Data, target: TargetReader
) -> RowScorer:
    """A scorer of predictions for rows of the data."""
    y = data.y
    if target.kind_ in ("binary", "multiclass"):
        y = target.classes_[y]
    elif target.kind_ == "multilabel":
        y = y.astype(int)
    elif target.is_column_:
        y = y[:, 0]
    # The user's own function may look at X; scikit-learn's scorers do not.
    seen = _safe_indexing(X, data.first) if callable(scoring) else None
    codes = data.y.astype(np.float64) if target.kind_ == "multilabel" else data.y
    # Class weights say what an error of a class costs, in the score too.
    return RowScorer(
        scorer,
        seen,
        y,
        data.loss_weight,
        target.classes_,
        metric=find_metric(scorer, target.kind_, target.classes_),
        codes=codes,
    )
