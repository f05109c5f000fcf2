"""Scores of many networks, fold by fold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sknas._data.target import fits_single
from sknas._problem import Problem

LOSS_SHARE = 0.1  # of the loss beside a score that reads labels


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
    is_piecewise_constant : bool
        Whether the score has steps, so that a share of the loss tells more.
    """

    mean: np.ndarray
    scores: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    is_piecewise_constant: bool
    _predictions: list[np.ndarray]
    _problem: Problem

    def value(self, place: int) -> float:
        """What points of a network, and networks, are compared by."""
        share = LOSS_SHARE if self.is_piecewise_constant else 0.0
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
        getattr(problem.score, "is_piecewise_constant", False)
        and not told.probabilistic,
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
