"""Scores of predictions by any scikit-learn scorer, and their loss."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.utils import _safe_indexing

from sknas._data.prepare import Data
from sknas._data.target import TargetReader
from sknas._problem import PredictionScorer, Score
from sknas._scoring.class_labels import reads_probabilities, with_classes
from sknas._scoring.metrics import Metric, count_repetitions, find_metric
from sknas._validation import did_you_mean, reject

MIN_PROBABILITY = 1e-7  # lower bound in the log-loss, to keep it finite


def find_scorer(
    caller_name: str, scoring: Any, is_classifier: bool
) -> Callable[..., float]:
    """Return the scorer of a name or a callable; accuracy or R2 for None.

    Raises
    ------
    InvalidParameterError
        If `scoring` is neither a known name nor callable.
    """
    if scoring is None:
        scoring = "accuracy" if is_classifier else "r2"
    if isinstance(scoring, str):
        if scoring not in get_scorer_names():
            allowed = "a scikit-learn scorer name"
            advice = did_you_mean(scoring, get_scorer_names())
            reject(caller_name, "scoring", scoring, allowed, advice)
        return get_scorer(scoring)
    if not callable(scoring):
        reject(caller_name, "scoring", scoring, "a scorer name, a callable or None")
    return check_scoring(DummyClassifier(), scoring=scoring)


def takes_weight(scorer: Callable[..., float]) -> bool:
    """Return True if a scorer's metric has the parameter `sample_weight`."""
    function = getattr(scorer, "_score_func", scorer)
    return "sample_weight" in inspect.signature(function).parameters


class _FixedPredictor(BaseEstimator, ABC):
    """A fitted estimator with given predictions, to call a scorer with."""

    def __init__(self, predictions: np.ndarray, classes: Any) -> None:
        self.predictions = predictions
        self.classes_ = classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @abstractmethod
    def predict(self, X: Any) -> np.ndarray:
        """Return labels or values, whatever X is."""


class _FixedClassifier(ClassifierMixin, _FixedPredictor):
    def predict(self, X: Any) -> np.ndarray:
        return labels(self.predictions, self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        probabilities = self.predictions.astype(np.float64)
        if isinstance(self.classes_, list):  # one probability per label
            return probabilities
        # Rows must sum to 1 in double precision, too.
        return probabilities / probabilities.sum(axis=1, keepdims=True)


class _FixedRegressor(RegressorMixin, _FixedPredictor):
    def predict(self, X: Any) -> np.ndarray:
        is_column = self.predictions.shape[1] == 1
        return self.predictions[:, 0] if is_column else self.predictions


def labels(probabilities: np.ndarray, classes: Any) -> np.ndarray:
    """Return the most probable class of each row, or 0 or 1 for each label."""
    if isinstance(classes, list):
        return (probabilities > 0.5).astype(int)
    return classes[probabilities.argmax(axis=1)]


@dataclass(eq=False)
class RowScorer(PredictionScorer):
    """Scores predictions for rows of a table with a scikit-learn scorer.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better.
    X : array-like of shape (N, F) or None
        Rows for a scorer that reads them; None for named scorers, which don't.
    y : ndarray of shape (N,) or (N, C)
        Targets: class labels, 0/1 labels or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    classes : ndarray, list of ndarray or None
        The classes; a list for multi-label targets, None for regression.
    metric : Metric or None, default=None
        The same scorer for several networks at once, see `sknas._scoring.metrics`.
    codes : ndarray of shape (N,) or (N, C) or None, default=None
        Targets that `metric` reads, None for `y`.
    """

    scorer: Callable[..., float]
    X: Any
    y: np.ndarray
    weight: np.ndarray
    classes: Any
    metric: Metric | None = None
    codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Only metrics of scikit-learn: the user's own may have any scale.
        module = getattr(getattr(self.scorer, "_score_func", None), "__module__", "")
        is_known = module.startswith("sklearn.") and self.classes is not None
        self.is_piecewise_constant = is_known and not reads_probabilities(self.scorer)
        self.takes_weight = takes_weight(self.scorer)
        self.scorer = with_classes(self.scorer, self.classes)

    def score(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Score:
        weight = self.weight[rows] if weight is None else weight
        weight = np.round(weight, 9)  # undo rounding errors: whole weights stay whole
        if len(rows) == 1:
            # R2 needs two rows, and a table of one row has no others to pool with.
            n_times = 2 if len(self.y) == 1 else 1
            return self._score(predictions.repeat(n_times, 0), rows.repeat(n_times), {})
        if np.all(weight == 1):
            return self._score(predictions, rows, {})
        if self.takes_weight:
            score = self._score(predictions, rows, {"sample_weight": weight})
            if not np.isnan(score.value):  # some metrics reject every weight
                return score
        repeats = count_repetitions(weight)
        return self._score(predictions.repeat(repeats, 0), rows.repeat(repeats), {})

    def score_many(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> np.ndarray:
        if self.metric is None or len(rows) < 2:
            return super().score_many(predictions, rows, weight)
        weight = self.weight[rows] if weight is None else weight
        y = self.y if self.codes is None else self.codes
        arrays = (predictions, y[rows], np.round(weight, 9))
        return self.metric(*map(torch.from_numpy, arrays)).numpy()

    def _score(
        self, predictions: np.ndarray, rows: np.ndarray, options: dict[str, Any]
    ) -> Score:
        cls = _FixedRegressor if self.classes is None else _FixedClassifier
        estimator = cls(predictions, self.classes)
        X = np.empty((len(rows), 1))
        if self.X is not None:
            X = _safe_indexing(self.X, rows)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # A metric would repeat its warnings for each fold of each trial.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # a mean of no classes
            try:
                return Score(float(self.scorer(estimator, X, self.y[rows], **options)))
            except Exception as error:  # for example, a fold lacks a class
                is_expected = isinstance(error, ValueError)
                kind = "" if is_expected else f"{type(error).__name__}: "
                reason = kind + " ".join(str(error).split())
                return Score(float("nan"), reason)


@dataclass(frozen=True, eq=False)
class RowLoss:
    """Mean log-loss, or squared error up to a factor, of predictions for rows.

    Parameters
    ----------
    y : ndarray of shape (N,) or (N, C)
        Class codes, 0/1 labels, or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    """

    y: np.ndarray
    weight: np.ndarray
    kind: str

    def __call__(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Any:
        """Return the loss (...) of predictions (..., N', C) for the given rows."""
        y = self.y[rows]
        weight = self.weight[rows] if weight is None else weight
        if self.kind == "regression":
            scale = np.abs(self.y).max() or 1.0  # squares of huge values overflow
            losses = ((predictions / scale - y / scale) ** 2).mean(axis=-1)
        elif self.kind == "multilabel":
            likelihood = np.where(y > 0, predictions, 1 - predictions)
            losses = -np.log(np.maximum(likelihood, MIN_PROBABILITY)).mean(axis=-1)
        else:
            likelihood = predictions[..., np.arange(len(rows)), y]
            losses = -np.log(np.maximum(likelihood, MIN_PROBABILITY))
        return np.average(losses, weights=weight, axis=-1)


def make_scorer(
    scorer: Callable[..., float], scoring: Any, X: Any, data: Data, target: TargetReader
) -> RowScorer:
    """Return a scorer of predictions for rows of the data."""
    y = data.y
    if target.kind_ in ("binary", "multiclass"):
        y = target.classes_[y]
    elif target.kind_ == "multilabel":
        y = y.astype(int)
    elif target.is_column_:
        y = y[:, 0]
    codes = data.y.astype(np.float64) if target.kind_ == "multilabel" else data.y
    return RowScorer(
        scorer,
        # Only a user's function may read X.
        _safe_indexing(X, data.source_rows) if callable(scoring) else None,
        y,
        data.loss_weight,  # class weights count in the score, too
        target.classes_,
        metric=find_metric(scorer, target.kind_, target.classes_),
        codes=codes,
    )
