"""Scores of the predictions of networks and baselines, fold by fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sknas._data.target import fits_single
from sknas._history import Cause
from sknas._problem import Fold, PredictionScorer, Problem, Score

LATE = Score(float("nan"), Cause.OUT_OF_TIME.value)
LOSS_SHARE = 0.1  # share of the loss subtracted from a piecewise-constant score


@dataclass(frozen=True, eq=False)
class FoldScores:
    """Scores of K networks on the folds of a problem.

    Parameters
    ----------
    scores : list of list of Score
        The scores of all networks, for each fold.
    loss : ndarray of shape (K,)
        Mean loss over the folds.
    finite : ndarray of bool of shape (K,)
        True if all outputs of the network are finite.
    all_predictions : list of ndarray of shape (K, N_i, C)
        Predictions for the validation rows of each fold.
    problem : Problem
        The folds, and those without a score.
    late : ndarray of bool of shape (K,)
        True if the deadline came before the network was scored.
    deadline : float or None, default=None
        Time on the monotonic clock after which the scorer is not called again.
    """

    scores: list[list[Score]]
    loss: np.ndarray
    finite: np.ndarray
    all_predictions: list[np.ndarray]
    problem: Problem
    late: np.ndarray
    deadline: float | None = None

    @cached_property
    def by_fold(self) -> np.ndarray:
        """Score of each fold, NaN where the problem has none, (K, n_folds)."""
        values = [[score.value for score in of_fold] for of_fold in self.scores]
        by_fold = np.stack(values, axis=1).astype(float)
        by_fold[:, list(self.problem.unscored_folds)] = np.nan
        return by_fold

    @cached_property
    def means(self) -> list[Score]:
        """Mean score of each network over the folds in which a model has one.

        It is undefined if one of these is missing, since other networks have it. If no
        fold has a score, such as R2 of one row or an AUC of one class, it is the score
        of all rows together.
        """
        is_counted = np.ones(len(self.scores), dtype=bool)
        is_counted[list(self.problem.unscored_folds)] = False
        indices = range(len(self.finite))
        if not is_counted.any():
            return [self._pooled(index) for index in indices]
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.where(is_counted, self.by_fold, 0.0).sum(axis=1)
        folds = np.flatnonzero(is_counted)
        return [
            Score(float(total[index] / len(folds)), self._missing(index, folds))
            for index in indices
        ]

    @property
    def mean(self) -> np.ndarray:
        """The values of `means`, (K,)."""
        return np.array([score.value for score in self.means])

    def _missing(self, index: int, folds: np.ndarray) -> str:
        """Return why a network has no score in some of the folds, "" if it has all."""
        missing = [f for f in folds if not np.isfinite(self.by_fold[index, f])]
        if not missing:
            return ""
        reason = self.reason(index, missing[0]).rstrip(".")
        is_partial = len(missing) < len(folds)
        return reason + f" (in {len(missing)} of {len(folds)} folds)" * is_partial

    def reason(self, index: int, fold: int) -> str:
        """Return why a network has no score in a fold."""
        reason = self.scores[fold][index].reason
        if reason:
            return reason
        rows, weight = self.problem.folds[fold].valid_rows, self._weight(fold)
        predicted, scorer = self.all_predictions[fold][index], self.problem.scorer
        assert scorer is not None
        return scorer.score(predicted, rows, weight).reason or "the scorer returned NaN"

    def _weight(self, fold: int) -> np.ndarray:
        return self.problem.folds[fold].valid.weight

    def _pooled(self, index: int) -> Score:
        """Return the score of the predictions of all folds together."""
        self.late[index] |= _is_late(self.deadline)
        if self.late[index]:
            return LATE
        pooled = self.predictions(index)
        rows = np.flatnonzero(~np.isnan(pooled).any(axis=1))
        assert self.problem.scorer is not None
        return self.problem.scorer.score(pooled[rows], rows)

    def value(self, index: int) -> float:
        """Return the value by which networks and their snapshots are ranked.

        If the score is piecewise constant, a share of the loss breaks ties.
        """
        assert self.problem.scorer is not None
        share = LOSS_SHARE if self.problem.scorer.is_piecewise_constant else 0.0
        value = self.means[index].value - share * self.loss[index]
        return float(value) if self.finite[index] else -np.inf

    def predictions(self, index: int) -> np.ndarray:
        """Return predictions (N, C) of a network for all rows, see `out_of_fold`."""
        own = [predicted[index] for predicted in self.all_predictions]
        return out_of_fold(own, self.problem)


def score_networks(
    problem: Problem, outputs: list[np.ndarray], deadline: float | None = None
) -> FoldScores:
    """Score the outputs of K networks on each fold.

    Parameters
    ----------
    problem : Problem
        The folds, the score and the loss.
    outputs : list of ndarray of shape (K, N_i, C)
        Logits or standardised targets for the validation rows of each fold.
    deadline : float or None, default=None
        Time on the monotonic clock after which the scorer is not called again.
    """
    finite = np.all([np.isfinite(o).all(axis=(1, 2)) for o in outputs], axis=0)
    predictions = [
        fold.restore(np.where(finite[:, None, None], output, 0.0))
        for fold, output in zip(problem.folds, outputs, strict=True)
    ]
    return score_predictions(problem, predictions, finite, deadline)


def score_predictions(
    problem: Problem,
    predictions: list[np.ndarray],
    finite: np.ndarray,
    deadline: float | None = None,
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
    deadline : float or None, default=None
        Time on the monotonic clock after which the scorer is not called again.
    """
    assert problem.scorer is not None and problem.loss is not None
    scores, late = _score_folds(problem.scorer, problem.folds, predictions, deadline)
    losses = [
        problem.loss(predicted, fold.valid_rows, fold.valid.weight)
        for fold, predicted in zip(problem.folds, predictions, strict=True)
    ]
    loss = np.mean(losses, axis=0)
    return FoldScores(scores, loss, finite, predictions, problem, late, deadline)


def _score_folds(
    scorer: PredictionScorer,
    folds: Sequence[Fold],
    predictions: list[np.ndarray],
    deadline: float | None,
) -> tuple[list[list[Score]], np.ndarray]:
    """Return the scores for each fold, and the models (K,) that the deadline cut short.

    Models are scored one after another if that is slow, so that the first ones have all
    of their scores in time.
    """
    late = np.zeros(len(predictions[0]), dtype=bool)
    if scorer.is_vectorised:
        scores = [
            scorer.score_each(predicted, fold.valid_rows, fold.valid.weight)
            for fold, predicted in zip(folds, predictions, strict=True)
        ]
        return scores, late
    scores = [[LATE] * len(late) for _ in folds]
    for k, f in np.ndindex(len(late), len(folds)):
        late[k] |= _is_late(deadline)
        if not late[k]:
            rows, weight = folds[f].valid_rows, folds[f].valid.weight
            scores[f][k] = scorer.score(predictions[f][k], rows, weight)
    return scores, late


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


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
