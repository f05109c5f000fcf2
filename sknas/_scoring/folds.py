"""Scores of the predictions of networks and baselines, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sknas._data.target import fits_single
from sknas._problem import Problem

LOSS_SHARE = 0.1  # share of the loss subtracted from a piecewise-constant score


@dataclass(frozen=True, eq=False)
class FoldScores:
    """Scores of K networks on the folds of a problem.

    Parameters
    ----------
    mean : ndarray of shape (K,)
        Mean over the folds that have a score. If none has one, such as R2 of one row or
        an AUC of one class, the score of all rows together; NaN if that is undefined.
    by_fold : ndarray of shape (K, n_folds)
        Score of each fold.
    loss : ndarray of shape (K,)
        Mean loss over the folds.
    finite : ndarray of bool of shape (K,)
        True if all outputs of the network are finite.
    reasons : list of str of length K
        Why a mean is undefined, if that is known.
    """

    mean: np.ndarray
    by_fold: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    reasons: list[str]
    _predictions: list[np.ndarray]
    _problem: Problem

    def value(self, index: int) -> float:
        """Return the value by which networks and their snapshots are ranked.

        If the score is piecewise constant, a share of the loss breaks ties.
        """
        assert self._problem.scorer is not None
        share = LOSS_SHARE if self._problem.scorer.is_piecewise_constant else 0.0
        value = self.mean[index] - share * self.loss[index]
        return float(value) if self.finite[index] else -np.inf

    def predictions(self, index: int) -> np.ndarray:
        """Return predictions (N, C) of a network for all rows, see `out_of_fold`."""
        own = [predicted[index] for predicted in self._predictions]
        return out_of_fold(own, self._problem)


def score_networks(problem: Problem, outputs: list[np.ndarray]) -> FoldScores:
    """Score the outputs of K networks on each fold.

    Parameters
    ----------
    problem : Problem
        The folds, the score and the loss.
    outputs : list of ndarray of shape (K, N_i, C)
        Logits or standardised targets for the validation rows of each fold.
    """
    finite = np.all([np.isfinite(o).all(axis=(1, 2)) for o in outputs], axis=0)
    predictions = [
        fold.restore(np.where(finite[:, None, None], output, 0.0))
        for fold, output in zip(problem.folds, outputs, strict=True)
    ]
    return score_predictions(problem, predictions, finite)


def score_predictions(
    problem: Problem, predictions: list[np.ndarray], finite: np.ndarray
) -> FoldScores:
    """Score the predictions of K models on each fold.

    Parameters
    ----------
    problem : Problem
        The folds, the score and the loss.
    predictions : list of ndarray of shape (K, N_i, C)
        Probabilities or target values for the validation rows of each fold.
    finite : ndarray of bool of shape (K,)
        True if all outputs of the model are finite.
    """
    assert problem.scorer is not None and problem.loss is not None
    scores, losses = [], []
    for fold, predicted in zip(problem.folds, predictions, strict=True):
        rows, weight = fold.valid_rows, fold.valid.weight
        scores.append(problem.scorer.score_many(predicted, rows, weight))
        losses.append(problem.loss(predicted, rows, weight))
    by_fold = np.stack(scores, axis=1)  # (K, n_folds)
    known = np.isfinite(by_fold)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(known, by_fold, 0.0).sum(axis=1) / known.sum(axis=1)
    reasons = [""] * len(mean)
    loss = np.mean(losses, axis=0)
    result = FoldScores(mean, by_fold, loss, finite, reasons, predictions, problem)
    for index in np.flatnonzero(~known.any(axis=1)):
        pooled = result.predictions(int(index))
        rows = np.flatnonzero(~np.isnan(pooled).any(axis=1))
        mean[index], reasons[index] = problem.scorer.score(pooled[rows], rows)
    return result


def out_of_fold(predictions: list[np.ndarray], problem: Problem) -> np.ndarray:
    """Return the mean prediction (N, C) for each row, NaN where no fold validates it.

    Parameters
    ----------
    predictions : list of ndarray of shape (N_i, C)
        Predictions for the validation rows of each fold.
    problem : Problem
        The folds.
    """
    total = np.zeros((problem.n_rows, predictions[0].shape[1]))
    count = np.zeros(problem.n_rows)
    for fold, predicted in zip(problem.folds, predictions, strict=True):
        total[fold.valid_rows] += predicted
        count[fold.valid_rows] += 1
    with np.errstate(invalid="ignore"):
        mean = total / count[:, None]
    return compact(mean)


def compact(predictions: np.ndarray) -> np.ndarray:
    """Return predictions (N, C) in single precision if that can hold them."""
    known = predictions[~np.isnan(predictions).any(axis=1)]
    return predictions.astype(np.float32) if fits_single(known) else predictions
