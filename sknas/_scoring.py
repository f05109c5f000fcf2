"""Scores of predictions that are already there, by any scikit-learn scorer."""

from __future__ import annotations

import inspect
import time
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

from sknas._checks import did_you_mean, reject
from sknas._metrics import MAX_REPEATED
from sknas._problem import Problem
from sknas.encoding._target import fits_single

LEAST_SHARE = 1e-7  # probability of the right class that the log-loss still tells
LOSS_SHARE = 0.1  # of the loss beside a score that reads labels


def find_scorer(owner: str, scoring: Any, is_classifier: bool) -> Callable[..., float]:
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
            reject(owner, "scoring", scoring, "a scikit-learn scorer name", advice)
        return get_scorer(scoring)
    if not callable(scoring):
        reject(owner, "scoring", scoring, "a scorer name, a callable or None")
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
        The scorer for several networks at once, see `sknas._metrics`.
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
        self.is_stepped = is_known and not reads_probabilities(scorer)
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
            losses = -np.log(np.maximum(right, LEAST_SHARE)).mean(axis=-1)
        else:
            right = predictions[..., np.arange(len(rows)), y]
            losses = -np.log(np.maximum(right, LEAST_SHARE))
        return np.average(losses, weights=weight, axis=-1)


def _repeats(weight: np.ndarray) -> np.ndarray:
    """How often to repeat rows for a metric without weights, within memory."""
    repeats = weight.astype(np.int64)
    repeats = repeats // max(int(np.gcd.reduce(repeats)), 1)
    excess = repeats.sum() / MAX_REPEATED
    return np.maximum(repeats / excess, 1).astype(int) if excess > 1 else repeats


@dataclass(frozen=True, eq=False)
class FoldScores:
    """Scores of predictions fold by fold.

    Parameters
    ----------
    mean : float
        Mean over the folds that have a score. Where none has one, as R2 of one row or
        an AUC of one class, the score of all rows together; NaN if that is undefined.
    scores, seconds : list of float
        One a fold.
    predictions : ndarray of shape (N, C)
        Mean of the predictions for each row, NaN where no fold validates it.
    """

    mean: float
    scores: list[float]
    seconds: list[float]
    predictions: np.ndarray


def score_folds(
    predictions: list[np.ndarray],
    rows: list[np.ndarray],
    weights: list[np.ndarray],
    n_rows: int,
    score: Callable[..., float],
) -> FoldScores:
    """Score the predictions of each fold (N_i, C) for its validation rows.

    Parameters
    ----------
    predictions, rows, weights : list of ndarray
        Predictions of each fold, their row numbers, and how often each counts.
    n_rows : int
        Rows of the table (N).
    score : callable
        (predictions, row numbers, weights) -> score.
    """
    scores, seconds = [], []
    total = np.zeros((n_rows, predictions[0].shape[1]))
    count = np.zeros(n_rows)
    for predicted, places, weight in zip(predictions, rows, weights, strict=True):
        started = time.monotonic()
        scores.append(score(predicted, places, weight))
        seconds.append(time.monotonic() - started)
        total[places] += predicted
        count[places] += 1
    with np.errstate(invalid="ignore"):
        averaged = total / count[:, None]
    averaged = compact(averaged)
    known = [value for value in scores if np.isfinite(value)]
    if known:
        with np.errstate(over="ignore"):
            mean = float(np.mean(known))
        return FoldScores(mean, scores, seconds, averaged)
    seen = np.flatnonzero(count)
    return FoldScores(score(averaged[seen], seen), scores, seconds, averaged)


@dataclass(frozen=True, eq=False)
class NetworkScores:
    """Scores of K networks, fold by fold.

    Parameters
    ----------
    mean : ndarray of shape (K,)
        Mean over the folds that have a score, see `FoldScores`.
    scores : ndarray of shape (K, folds)
        The score of each fold.
    loss : ndarray of shape (K,)
        Mean loss over the folds.
    finite : ndarray of bool of shape (K,)
        Whether all answers were finite.
    is_stepped : bool
        Whether the score has steps, so that a share of the loss tells more.
    """

    mean: np.ndarray
    scores: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    is_stepped: bool
    _predictions: list[np.ndarray]
    _problem: Problem

    def value(self, place: int) -> float:
        """What points of a network, and networks, are compared by."""
        share = LOSS_SHARE if self.is_stepped else 0.0
        value = self.mean[place] - share * self.loss[place]
        return float(value) if self.finite[place] else -np.inf

    def predictions(self, place: int) -> np.ndarray:
        """Predictions (N, C) of a network for all rows, NaN where none is validated."""
        own = [predicted[place] for predicted in self._predictions]
        return out_of_fold(own, self._problem)


def score_networks(problem: Problem, outputs: list[np.ndarray]) -> NetworkScores:
    """Score the answers of K networks on each fold, (K, N_i, C).

    Parameters
    ----------
    problem : Problem
        The folds, the score and the loss.
    outputs : list of ndarray
        Logits, or standardised targets, one array a fold.
    """
    assert problem.score is not None and problem.loss is not None
    finite = np.all([np.isfinite(o).all(axis=(1, 2)) for o in outputs], axis=0)
    predictions, scores, losses = [], [], []
    for fold, output in zip(problem.folds, outputs, strict=True):
        predicted = fold.restore(np.where(finite[:, None, None], output, 0.0))
        predictions.append(predicted)
        rows, weight = fold.valid_rows, fold.valid.weight
        scores.append(score_many(problem, predicted, rows, weight))
        losses.append(problem.loss(predicted, rows, weight))
    by_fold = np.stack(scores, axis=1)  # (K, folds)
    known = np.isfinite(by_fold)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(known, by_fold, 0.0).sum(axis=1) / known.sum(axis=1)
    told = problem.folds[0].task
    result = NetworkScores(
        mean,
        by_fold,
        np.mean(losses, axis=0),
        finite,
        getattr(problem.score, "is_stepped", False) and not told.probabilistic,
        predictions,
        problem,
    )
    for place in np.flatnonzero(~known.any(axis=1)):
        pooled = result.predictions(int(place))
        seen = np.flatnonzero(~np.isnan(pooled).any(axis=1))
        mean[place] = problem.score(pooled[seen], seen)
    return result


def score_many(
    problem: Problem,
    predictions: np.ndarray,
    rows: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Scores (K,) of predictions (K, N', C), at once where the score can do that."""
    score = problem.score
    assert score is not None
    if hasattr(score, "many"):
        return score.many(predictions, rows, weight)
    told = (rows,) if weight is None else (rows, weight)
    return np.array([score(each, *told) for each in predictions])


def compact(predictions: np.ndarray) -> np.ndarray:
    """Predictions (N, C) in single precision, where that can hold them."""
    seen = predictions[~np.isnan(predictions).any(axis=1)]
    return predictions.astype(np.float32) if fits_single(seen) else predictions


def out_of_fold(predictions: list[np.ndarray], problem: Problem) -> np.ndarray:
    """Mean prediction (N, C) for each row, NaN where no fold validates it."""
    total = np.zeros((problem.n_rows, predictions[0].shape[1]))
    count = np.zeros(problem.n_rows)
    for fold, predicted in zip(problem.folds, predictions, strict=True):
        total[fold.valid_rows] += predicted
        count[fold.valid_rows] += 1
    with np.errstate(invalid="ignore"):
        averaged = total / count[:, None]
    return compact(averaged)
